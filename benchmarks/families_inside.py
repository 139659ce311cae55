"""A process that benchmarks/families.py starts: llmchat's engine with one checkpoint.

usage: python benchmarks/families_inside.py FOLDER

The protocol is that of llmchat/bench/peer_protocol.py. Prompts are token ids, the same as those of
the peers.
"""

import random
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from llmchat.bench.peer_protocol import DECODE, WARM, Measured, Measures, serve, timed
from llmchat.engines import Sampling
from llmchat.engines.capabilities import DraftsTokens, unwrap
from llmchat.process import startup
from llmchat.prompt import Prompt

PREFILL, SHORT, TOGETHER = 541, 4, 16
# Ids of ordinary tokens in every vocabulary of family_shapes.py.
_FIRST, _LAST = 300, 31_000


def prompt_ids(count: int, seed: int = 0) -> list[int]:
    dice = random.Random(seed)
    return [dice.randint(_FIRST, _LAST) for _ in range(count)]


def load(folder: Path) -> Measures:
    from llmchat.models.opener import ModelOpener
    from llmchat.settings import World

    flags = {"model": str(folder), "weights": "int8", "format": "chatml", "device": "cpu"}
    engine: Any = unwrap(ModelOpener(World.real(), flags).open().engine)
    if isinstance(engine, DraftsTokens):
        engine.drafts = False
    return {
        "decode": lambda: _timed(engine, [prompt_ids(SHORT)], DECODE, DECODE),
        "prefill": lambda: _timed(engine, [prompt_ids(PREFILL)], 1, PREFILL),
        "together": lambda: together(engine),
        "warm": lambda: _answer(engine, [prompt_ids(SHORT)], WARM),
        "executor": lambda: type(engine._forward).__name__,
    }


def together(engine: Any) -> dict[str, float]:
    """Tokens a second of one answer and of sixteen at once, interleaved, and their ratio."""
    engine.slots = TOGETHER
    prompts = [prompt_ids(SHORT, seed) for seed in range(TOGETHER)]
    _answer(engine, prompts, 2)
    runs = [
        (
            _timed(engine, prompts[:1], DECODE, DECODE)["tps"],
            _timed(engine, prompts, DECODE, TOGETHER * DECODE)["tps"],
        )
        for _ in range(3)
    ]
    one, many = (statistics.median(column) for column in zip(*runs, strict=True))
    return {"one": one, "many": many, "ratio": many / one}


def _timed(engine: Any, prompts: Sequence[list[int]], count: int, tokens: int) -> Measured:
    engine.clear_cache()
    started = time.process_time()
    measured = timed(lambda: _answer(engine, prompts, count), tokens)
    return measured | {"cpu_s": time.process_time() - started}


def _answer(engine: Any, prompts: Sequence[list[int]], count: int) -> None:
    """Greedy answers of `count` tokens to all prompts at once."""
    sampling = Sampling(temperature=0, max_tokens=count, ignore_eos=True)
    answers = [engine.begin(Prompt("", (), bos=False, ids=tuple(ids)), sampling) for ids in prompts]
    try:
        while running := [answer for answer in answers if not answer.done]:
            engine.step(running)
    finally:
        for answer in answers:
            answer.close()


if __name__ == "__main__":
    startup.limit_spinning()
    serve(lambda: load(Path(sys.argv[1])))
