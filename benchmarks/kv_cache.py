#!/usr/bin/env python3
"""A KV cache of 8 bits beside one of 16: perplexity of long texts, and the time of a token.

usage: python benchmarks/kv_cache.py MODEL... [--tokens N] [--lengths N,N] [--rounds N] [--save]

Texts: chapters of Moby-Dick, and the source of Python's argparse. The last quarter of a text shows
what errors in many keys and values cost. Times are those of the processor, with as many threads as
torch has, in turns: with the same weights, one token with each kind of cache. --save writes
benchmarks/results/kv_cache.json.
"""

import argparse
import datetime
import json
import statistics
import time
from pathlib import Path
from typing import Any, get_args

import torch
from basics import TEXT, processor

from llmchat.engines.transformers.compiled.kv_cache import CompiledCache
from llmchat.engines.transformers.executor import SequenceInput
from llmchat.engines.transformers.families.cache_shapes import bytes_of_token
from llmchat.models.opener import ModelOpener
from llmchat.prompt import Prompt
from llmchat.settings import World
from llmchat.settings.types import KvKind

KINDS: tuple[KvKind, ...] = get_args(KvKind)
TEXTS = {"prose": TEXT, "code": Path(argparse.__file__)}
CHUNK, TIMED = 256, 8


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="+")
    parser.add_argument("--tokens", type=int, default=8192)
    parser.add_argument("--lengths", default="128,2048,8192")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--save", action="store_true")
    arguments = parser.parse_args()
    rows = [row for model in arguments.models for row in measure(model, arguments)]
    if arguments.save:
        about = {
            "command": "python benchmarks/kv_cache.py MODELS --save",
            "processor": processor(),
            "threads": torch.get_num_threads(),
            "date": datetime.date.today().isoformat(),
        }
        path = Path(__file__).parent / "results" / "kv_cache.json"
        path.write_text(json.dumps(about | {"rows": rows}, indent=2) + "\n")


def measure(model: str, arguments: argparse.Namespace) -> list[dict[str, Any]]:
    engine = ModelOpener(World.real(), {"model": model, "device": "cpu"}).open().engine
    forward = engine._forward
    rows = [
        {"model": model, "text": name, **of_text(forward, ids)}
        for name, path in TEXTS.items() if arguments.tokens
        for ids in [engine.encode(Prompt(path.read_text(), ()))[: arguments.tokens]]
    ]  # fmt: skip
    ids = engine.encode(Prompt(TEXT.read_text(), ()))
    for length in map(int, filter(None, arguments.lengths.split(","))):
        rows.append(
            {"model": model, "length": length, **of_length(forward, ids, length, arguments)}
        )
    for row in rows:
        print(json.dumps(row), flush=True)
    return rows


def cache_of(forward: Any, kind: KvKind) -> CompiledCache:
    return CompiledCache(forward._cache_shapes, forward._trained, kind)


def read(forward: Any, cache: CompiledCache, ids: list[int], *, scored: bool) -> list[Any]:
    with torch.inference_mode():
        return [
            forward.run([SequenceInput(cache, ids[at : at + CHUNK], scored, whole=len(ids))])[0]
            for at in range(cache.length, len(ids), CHUNK)
        ]


def of_text(forward: Any, ids: list[int]) -> dict[str, Any]:
    """Perplexity by kind, of the whole text and of its last quarter."""
    found: dict[str, Any] = {"tokens": len(ids)}
    for kind in KINDS:
        cache, scores = cache_of(forward, kind), []
        for at in range(0, len(ids) - 1, CHUNK):
            following = torch.tensor(ids[at + 1 :][:CHUNK])
            (logits,) = read(forward, cache, ids[: at + len(following)], scored=True)
            scores.append(logits.log_softmax(-1).gather(1, following[:, None])[:, 0])
        every = torch.cat(scores)
        found[kind] = float((-every.mean()).exp())
        found[f"{kind}, last quarter"] = float((-every[-len(every) // 4 :].mean()).exp())
    return found


def of_length(
    forward: Any, ids: list[int], length: int, arguments: argparse.Namespace
) -> dict[str, Any]:
    """Milliseconds of a token after `length` others, of the processor and of the clock."""
    caches = {kind: cache_of(forward, kind) for kind in KINDS}
    for cache in caches.values():
        read(forward, cache, ids[:length], scored=False)
    times: dict[str, list[float]] = {f"{kind} {clock}": [] for kind in KINDS for clock in CLOCKS}
    for _ in range(arguments.rounds):
        for kind, cache in caches.items():
            for clock, spent in timed(forward, cache, ids, length).items():
                times[f"{kind} {clock}"].append(spent)
    size = {f"{kind} bytes": bytes_of_token(cache.shape, 2, kind) for kind, cache in caches.items()}
    return {name: statistics.median(of_rounds) for name, of_rounds in times.items()} | size


CLOCKS = {"processor": time.process_time, "clock": time.perf_counter}


def timed(forward: Any, cache: CompiledCache, ids: list[int], length: int) -> dict[str, float]:
    cache.truncate(length)
    read(forward, cache, ids[: length + 1], scored=False)
    started = {name: clock() for name, clock in CLOCKS.items()}
    for end in range(length + 2, length + 2 + TIMED):
        read(forward, cache, ids[:end], scored=False)
    return {name: 1e3 * (clock() - started[name]) / TIMED for name, clock in CLOCKS.items()}


if __name__ == "__main__":
    main()
