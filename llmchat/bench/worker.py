"""A process of a benchmark: measures a model, or the memory bandwidth; see peer_protocol."""

import json
import sys
import time
from typing import Any

from llmchat.bench.peer_protocol import DECODE, LONG, SHORT, WARM, Measured, Measures, serve
from llmchat.engines import Engine, Finish, Sampling
from llmchat.engines.capabilities import DraftsTokens, unwrap
from llmchat.process import startup
from llmchat.prompt import Prompt


def load_engine(flags: dict[str, Any]) -> Measures:
    """Load a model as `llmchat chat` does, without prompt-lookup decoding: one pass a token."""
    from llmchat.models.opener import ModelOpener
    from llmchat.settings import World

    engine = ModelOpener(World.real(), flags).open().engine
    worker = unwrap(engine)
    if isinstance(worker, DraftsTokens):
        worker.drafts = False
    return measures_of(engine)


def measures_of(engine: Engine) -> Measures:
    def decode() -> Measured:
        finish, seconds = timed_answer(engine, SHORT, DECODE)
        return {"tps": finish.reply_tokens / seconds, "tokens": finish.reply_tokens}

    def prefill() -> Measured:
        finish, seconds = timed_answer(engine, LONG, 1)
        return {"tps": finish.prompt_tokens / seconds, "tokens": finish.prompt_tokens}

    def first() -> float:
        return timed_answer(engine, SHORT, 1)[1]

    def warm() -> None:
        timed_answer(engine, SHORT, WARM)

    return {"decode": decode, "prefill": prefill, "first": first, "warm": warm}


def timed_answer(engine: Engine, text: str, count: int) -> tuple[Finish, float]:
    """Time a greedy answer of `count` tokens to a plain text, with an empty KV cache.

    The seconds include the prefill.
    """
    engine.clear_cache()
    started = time.perf_counter()
    *_, finish = engine.stream(
        Prompt(text, ()), Sampling(temperature=0, max_tokens=count, ignore_eos=True)
    )
    assert isinstance(finish, Finish)
    return finish, time.perf_counter() - started


def load_memory(flags: dict[str, Any]) -> Measures:
    from llmchat.bench.bandwidth import Memory

    memory = Memory(str(flags.get("device") or "auto"))
    return {"bandwidth": memory.read_rate}


if __name__ == "__main__":
    startup.limit_spinning()
    kind, wanted = sys.argv[1], json.loads(sys.argv[2])
    serve(lambda: {"engine": load_engine, "memory": load_memory}[kind](wanted))
