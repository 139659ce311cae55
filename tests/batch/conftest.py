from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.batches import scripted_work
from support.worlds import make_world

from llmchat.batches import Outcome, Results, lines_of, run
from llmchat.settings import World

Answer = Callable[..., Outcome]


@pytest.fixture
def world(tmp_path: Path) -> World:
    return make_world(tmp_path)


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
