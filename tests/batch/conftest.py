from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace
from support.worlds import make_world

from llmchat.batch import Outcome, Results, Work, lines_of, run
from llmchat.engines import Sampling
from llmchat.engines.scripted import ScriptedEngine
from llmchat.models.open_model import OpenModel
from llmchat.presets import find, get_format
from llmchat.settings import World

Answer = Callable[..., Outcome]


@pytest.fixture
def world(tmp_path: Path) -> World:
    return make_world(tmp_path)


def scripted_work(**changes: Any) -> Work:
    """Answers that quote their questions."""
    preset = replace(find("alpaca-7b"), format=get_format("chatml"))
    opened = OpenModel(preset, ScriptedEngine(), {"model": "scripted"})
    return Work(opened, Sampling(temperature=0), **changes)


@pytest.fixture
def answer(world: World) -> Answer:
    """A batch from a file to a file."""

    def answer(source: Path, target: Path, as_done: bool = False, **changes: Any) -> Outcome:
        work = scripted_work(**changes)
        results = Results(target, work.fingerprint, as_done=as_done)
        try:
            return run(work, lines_of(world, str(source)), results, world, quiet=True)
        finally:
            results.close()

    return answer
