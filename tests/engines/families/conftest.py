"""Tiny models of every family, each made once for all tests of a session."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import transformers
from support.family_engines import TinyModel

OpenTiny = Callable[[str], TinyModel]


@pytest.fixture(scope="session")
def open_tiny(tmp_path_factory: pytest.TempPathFactory, kernel_folder: Path) -> OpenTiny:
    """The model of a case of support.tiny_families."""
    transformers.utils.logging.disable_progress_bar()
    made: dict[str, TinyModel] = {}

    def open_tiny(name: str) -> TinyModel:
        if name not in made:
            made[name] = TinyModel(name, tmp_path_factory.mktemp("tiny"), kernel_folder)
        return made[name]

    return open_tiny


@pytest.fixture
def tiny(request: pytest.FixtureRequest, open_tiny: OpenTiny) -> Iterator[TinyModel]:
    """The model of the case that parametrises the test."""
    model = open_tiny(request.param)
    yield model
    model.close_exact()
