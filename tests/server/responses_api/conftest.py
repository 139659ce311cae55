"""A server whose models call a tool, think, or answer in plain words."""

import functools
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.responses import SCRIPTS, Failing
from support.serving import HERMES, Running, model_spec, serving

from llmchat.engines.scripted import ScriptedEngine
from llmchat.engines.transformers import TransformersEngine


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    models = {
        name: model_spec(lambda script=script: ScriptedEngine(script), HERMES, key=name)
        for name, script in SCRIPTS.items()
    }
    with serving(models, tmp_path_factory.mktemp("server")) as running:
        yield running


@pytest.fixture(scope="module")
def tiny_run(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A checkpoint with random weights, whose answers are tokens of a vocabulary."""
    load = functools.partial(TransformersEngine, tiny, weights="fp32")
    with serving({"tiny": model_spec(load)}, tmp_path_factory.mktemp("tiny-server")) as running:
        yield running


@pytest.fixture(scope="module")
def failing_run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with serving({"m": model_spec(Failing)}, tmp_path_factory.mktemp("server")) as running:
        yield running
