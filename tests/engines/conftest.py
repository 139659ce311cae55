"""The compiled kernels, built once for all tests of the engines."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from support.compiled_models import PATHS

from llmchat.engines.transformers.compiled.build import load_kernels
from llmchat.engines.transformers.compiled.kernels import Kernels


@pytest.fixture(scope="session")
def kernel_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("kernels")


@pytest.fixture(scope="session", params=PATHS)
def compiled(request: pytest.FixtureRequest, kernel_folder: Path) -> Kernels:
    """The kernels of each path of the preprocessor."""
    return load_kernels(kernel_folder, PATHS[request.param])


@pytest.fixture(params=[1, 2], ids=["one thread", "two threads"])
def kernels(request: pytest.FixtureRequest, compiled: Kernels) -> Iterator[Kernels]:
    """The same on one thread and on two."""
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield compiled
    torch.set_num_threads(before)
