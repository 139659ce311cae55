#!/usr/bin/env python3
"""A draft model on code: the time of an answer with and without it, in turns, for the same answer.

    python benchmarks/draft.py LARGE DRAFT [--rounds N] [--tokens N] [--save]

LARGE and DRAFT are pulled models, as --model names them. Two engines in one process answer the same
questions one after the other, greedily and with LARGE's own sampling and a seed, from empty caches.
Counted are the wall time and the CPU time of all threads from the first token to the last one, the
draft model's reading of the prompt included. Medians count. The script fails if an answer differs.
--save writes benchmarks/results/draft.json.
"""

import argparse
import datetime
import json
import statistics
import time
from pathlib import Path
from typing import Any, NamedTuple

from basics import processor
from msgspec.structs import replace

from llmchat.conversation import Message
from llmchat.engines import Chunk, Finish, Sampling
from llmchat.engines.transformers import TransformersEngine
from llmchat.models.loading import load
from llmchat.models.locate import Model, locate
from llmchat.presets import preset_for
from llmchat.prompt import Prompt
from llmchat.settings import Options, World

RESULT = Path(__file__).parent / "results" / "draft.json"
QUESTIONS = (
    "Write a Python function that parses an INI file without configparser.",
    "Write a C function that reverses a singly linked list, and a main that tests it.",
    "Write a Python class for an LRU cache with get and put in O(1), with type hints.",
    "Write a TypeScript function that debounces another function, and explain it.",
    "Write SQL that finds the three best customers of each month from a table of orders.",
    "Write a bash script that renames all *.jpeg files below a folder to *.jpg.",
)
LEAST = 1.3


class Run(NamedTuple):
    """An answer, and the seconds from its first token to its last one."""

    text: str
    tokens: int
    wall: float
    cpu: float


def opened(name: str, draft: str) -> tuple[Model, TransformersEngine]:
    world = World.real()
    options = Options(model=name, draft=draft or "none", device="cpu")
    model = locate(preset_for(options, world.own_presets), world)
    engine = load(model, options)
    assert isinstance(engine, TransformersEngine)
    return model, engine


def run(engine: TransformersEngine, prompt: Prompt, sampling: Sampling) -> Run:
    engine.clear_cache()
    if engine.draft:
        engine.draft.slots.clear()
    text, cpu = "", 0.0
    for event in engine.stream(prompt, sampling):
        if isinstance(event, Chunk):
            cpu = cpu or time.process_time()
            text += event.text
        elif isinstance(event, Finish):
            return Run(text, event.reply_tokens, event.decode_s, time.process_time() - cpu)
    raise AssertionError("an answer without an end")


def measured(
    engines: dict[str, TransformersEngine], model: Model, sampling: Sampling, rounds: int
) -> dict[str, Any]:
    """Medians over the questions of the ratios of each, and what was kept of the drafts."""
    ratios: dict[str, list[float]] = {"wall": [], "cpu": []}
    speeds: dict[str, list[float]] = {name: [] for name in engines}
    for question in QUESTIONS:
        prompt = model.preset.format.render([Message("user", question)])
        runs: dict[str, list[Run]] = {name: [] for name in engines}
        for _ in range(rounds):
            for name, engine in engines.items():
                runs[name].append(run(engine, prompt, sampling))
        if len({one.text for found in runs.values() for one in found}) > 1:
            raise SystemExit(f"the answers to `{question}` differ")
        for clock in ratios:
            plain, drafted = (
                statistics.median(getattr(one, clock) for one in runs[name]) for name in engines
            )
            ratios[clock].append(plain / drafted)
        for name, found in runs.items():
            speeds[name].append(statistics.median(one.tokens / one.wall for one in found))
        print(f"  {ratios['wall'][-1]:.2f} x wall, {ratios['cpu'][-1]:.2f} x CPU: {question}")
    draft = engines["with"].draft
    assert draft
    return {
        **{clock: statistics.median(found) for clock, found in ratios.items()},
        **{f"{clock}, worst": min(found) for clock, found in ratios.items()},
        **{f"tokens a second, {name}": statistics.median(one) for name, one in speeds.items()},
        "kept": draft.right / max(1, draft.proposed),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("large")
    parser.add_argument("draft")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--tokens", type=int, default=256)
    parser.add_argument("--save", action="store_true")
    given = parser.parse_args()
    model, plain = opened(given.large, "")
    engines = {"without": plain, "with": opened(given.large, given.draft)[1]}
    bounds = {"max_tokens": given.tokens, "seed": 1}
    kinds = {
        "greedy": Sampling(temperature=0, **bounds),
        "drawn": replace(model.preset.sampling, **bounds),
    }
    results = {}
    for kind, sampling in kinds.items():
        print(kind)
        results[kind] = measured(engines, model, sampling, given.rounds)
        print({name: round(value, 3) for name, value in results[kind].items()})
    ratio = results["greedy"]["wall"]
    print(
        f"{'ok' if ratio >= LEAST else 'below'}: {ratio:.2f} x on code, at least {LEAST} x wanted"
    )
    if given.save:
        facts = {
            "day": datetime.date.today().isoformat(),
            "processor": processor(),
            "large": given.large,
            "draft": given.draft,
            "results": results,
        }
        RESULT.write_text(json.dumps(facts, indent=1) + "\n")


if __name__ == "__main__":
    main()
