"""A server for tests with OpenAI's client: a tiny checkpoint with two adapters, and a script."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from msgspec.structs import replace
from support.checkpoints import save_adapter, save_tiny
from support.serving import Running, model_spec, serving

from llmchat.engines import Engine
from llmchat.engines.scripted import ScriptedEngine
from llmchat.engines.transformers import TransformersEngine


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def run(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("server")
    adapters = {
        name: save_adapter(folder / name, tiny, seed=seed)
        for name, seed in (("one", 1), ("two", 2))
    }
    base = model_spec(lambda: TransformersEngine(tiny, weights="fp32"), key="tiny", adapters=())
    specs = {
        "tiny": base,
        "scripted": model_spec(
            lambda: ScriptedEngine(["Well, **yes**.\n\nAnd no."]), key="scripted"
        ),
    }
    specs |= {
        f"tiny+{name}": replace(base, adapters=((name, 1.0),), folders={name: path})
        for name, path in adapters.items()
    }
    with serving(specs, folder, slots=4) as running:
        yield running


@pytest.fixture(scope="module")
def engine(tiny: Path) -> Engine:
    return TransformersEngine(tiny, weights="fp32")
