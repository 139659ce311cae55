#!/usr/bin/env python3
"""What a structure costs: decode speed free and under a deep schema, and the first mask.

usage: python benchmarks/structure.py FOLDER [--gguf FILE] [--rounds N] [--save]

FOLDER is a checkpoint (SmolLM2-135M-Instruct for the numbers in the documentation). --gguf: the
same weights for llama.cpp, measured in turns with ours for the same prompt and schema. Medians.
--save writes benchmarks/results/structure.json.
"""

import argparse
import datetime
import json
import statistics
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from llmchat.bench import machine
from llmchat.conversation import Message
from llmchat.engines import Chunk, Finish, Sampling
from llmchat.engines.guide import Guide, Guides
from llmchat.models.open_model import OpenModel
from llmchat.models.opener import ModelOpener
from llmchat.prompt import Prompt
from llmchat.settings import World
from llmchat.structure import Structure, from_schema

HERE = Path(__file__).parent
QUESTION = "Invent a company with two employees. Answer in JSON with their names and addresses."
ADDRESS = {
    "type": "object",
    "properties": {
        "street": {"type": "string", "maxLength": 40},
        "city": {"type": "string", "pattern": "^[A-Z][a-z]{2,14}$"},
        "zip": {"type": "string", "pattern": "^[0-9]{5}$"},
    },
    "required": ["street", "city", "zip"],
    "additionalProperties": False,
}
EMPLOYEE = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 30},
        "age": {"type": "integer", "minimum": 18, "maximum": 99},
        "email": {"type": "string", "format": "email"},
        "role": {"enum": ["engineer", "designer", "manager"]},
        "address": ADDRESS,
    },
    "required": ["name", "age", "email", "role", "address"],
    "additionalProperties": False,
}
DEEP = {
    "type": "object",
    "properties": {
        "company": {"type": "string", "maxLength": 40},
        "founded": {"type": "integer", "minimum": 1900, "maximum": 2030},
        "employees": {"type": "array", "items": EMPLOYEE, "minItems": 2, "maxItems": 2},
    },
    "required": ["company", "founded", "employees"],
    "additionalProperties": False,
}
FREE = Sampling(temperature=0, max_tokens=160, ignore_eos=True)
UNDER = Sampling(temperature=0, max_tokens=400, structure=from_schema(DEEP))


class Clock:
    """Seconds of CPU within the guide, and the tokens that it forced and that were sampled."""

    def __init__(self) -> None:
        self.seconds, self.forced, self.sampled = 0.0, 0, 0

    def installed(self) -> "Clock":
        for name in ("mask", "forced", "accept"):
            setattr(Guide, name, self._timed(getattr(Guide, name), name))
        return self

    def _timed(self, method: Callable[..., Any], name: str) -> Callable[..., Any]:
        def run(guide: Guide, *arguments: Any) -> Any:
            started = time.thread_time()
            result = method(guide, *arguments)
            self.seconds += time.thread_time() - started
            self.forced += len(result) if name == "forced" else 0
            self.sampled += name == "mask"
            return result

        return run


def answer(engine: Any, prompt: Prompt, sampling: Sampling) -> tuple[str, Finish]:
    *events, finish = engine.stream(prompt, sampling)
    return "".join(event.text for event in events if isinstance(event, Chunk)), finish


def measured(opened: OpenModel, sampling: Sampling, clock: Clock) -> dict[str, float]:
    """One answer of a prompt that was read before."""
    prompt = opened.preset.format.render([Message("user", QUESTION)])
    clock.seconds, clock.forced, clock.sampled = 0.0, 0, 0
    text, finish = answer(opened.engine, prompt, sampling)
    if sampling.structure:
        json.loads(text)
    tokens = finish.reply_tokens
    return {
        "characters_per_s": len(text) / finish.decode_s,
        "tokens_per_s": tokens / finish.decode_s,
        "ms": 1e3 * finish.decode_s,
        "tokens": tokens,
        "forced": clock.forced,
        "sampled": clock.sampled,
        "guide_share_%": 100 * clock.seconds / finish.decode_s,
        "guide_us_per_sampled": 1e6 * clock.seconds / max(1, clock.sampled),
    }


def first_masks(opened: OpenModel) -> dict[str, float]:
    """Milliseconds to the first mask: with the table of tokens to build, with the grammar to build,
    and of a grammar that was used before.
    """
    engine = opened.engine
    guides = Guides(engine._model.tokens, engine._vocabulary)

    def first(structure: Structure) -> float:
        started = time.perf_counter()
        guide = guides.guide(Prompt("x", ()), replace(UNDER, structure=structure), frozenset({2}))
        assert guide
        for token in guide.forced():
            guide.accept(token)
        guide.mask()
        return 1e3 * (time.perf_counter() - started)

    other = from_schema(DEEP | {"title": "other"})
    return {"cold": first(UNDER.structure), "warm": first(other), "used": first(other)}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder")
    parser.add_argument("--gguf")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--save", action="store_true")
    arguments = parser.parse_args()
    world = World.real()
    opened = {"llmchat int8": ModelOpener(world, {"model": arguments.folder}).open()}
    opened["llmchat int8"].engine.drafts = False
    if arguments.gguf:
        found = {"model": arguments.gguf, "engine": "gguf"}
        opened["llama.cpp"] = ModelOpener(world, found).open()
    masks = [first_masks(opened["llmchat int8"]) for _ in range(arguments.rounds)]
    clock = Clock().installed()
    runs: dict[str, list[dict[str, float]]] = defaultdict(list)
    for number in range(arguments.rounds + 1):
        for name, model in opened.items():
            for kind, sampling in (("free", FREE), ("schema", UNDER)):
                one = measured(model, sampling, clock)
                if number:
                    runs[f"{name}, {kind}"].append(one)
    rows = {name: medians(found) for name, found in runs.items()}
    rows["first mask, ms"] = medians(masks)
    for name, row in rows.items():
        print(f"{name:24}", "  ".join(f"{key} {value:,.4g}" for key, value in row.items()))
    if arguments.save:
        result = {
            "command": "python benchmarks/structure.py FOLDER --gguf FILE --save",
            "date": datetime.date.today().isoformat(),
            "machine": machine.facts("cpu", machine.Machine(0)),
            "rows": rows,
        }
        path = HERE / "results" / "structure.json"
        path.write_text(json.dumps(result, indent=2, ensure_ascii=False) + "\n")


def medians(runs: list[dict[str, float]]) -> dict[str, float]:
    return {key: statistics.median(run[key] for run in runs) for key in runs[0]}


if __name__ == "__main__":
    main()
