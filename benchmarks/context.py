#!/usr/bin/env python3
"""What each context policy costs and keeps: 60 turns in a window of 2,048 tokens.

usage: python benchmarks/context.py [--save]       needs `llmchat pull smollm2`

The default model answers the questions once. The same questions and answers then go through `Chat`
with each policy. As the engine does, the longest common prefix determines how many tokens each turn
prefills. The model itself writes the summaries; their tokens count too. --save writes
benchmarks/results/context.json.
"""

import argparse
import datetime
import json
import statistics
from collections.abc import Generator
from pathlib import Path
from typing import Any

from basics import open_engine, processor
from msgspec.structs import replace

from llmchat import summary
from llmchat.chat import Chat
from llmchat.engines import Chunk, Finish, Sampling
from llmchat.history import History
from llmchat.presets import ContextPolicy
from llmchat.prompt import Prompt

WINDOW, TURNS = 2048, 60
THINGS = [
    "bread",
    "rain",
    "horses",
    "Japan",
    "chess",
    "glass",
    "the",
    "moon",
    "cotton",
    "bridges",
    "whales",
    "tea",
    "Rome",
    "clocks",
    "snow",
    "maps",
    "bees",
    "paper",
    "Egypt",
    "ships",
    "salt",
    "drums",
    "deserts",
    "books",
    "owls",
    "rice",
    "trains",
    "silk",
    "volcanoes",
    "stars",
    "wheat",
]
POLICIES = [
    *(("drop-oldest", low) for low in (1.0, 0.9, 0.75, 0.6, 0.5, 0.35)),
    ("last-n", 1.0),
    *(("summary", low) for low in (0.75, 0.5)),
]


def questions() -> list[str]:
    first = [f"Tell me something about {thing} in two or three sentences." for thing in THINGS]
    return [
        text
        for thing, text in zip(THINGS, first, strict=True)
        for text in (text, f"And why do people care about {thing}?")
    ][:TURNS]


class Recorded:
    """An engine that replays answers and counts the tokens to prefill; summaries are real."""

    def __init__(self, real: Any, answers: list[str]):
        self._real, self._answers = real, iter(answers)
        self.context, self.load_s, self.resumes = real.context, 0.0, True
        self.count, self.encode = real.count, real.encode
        self._cache: list[int] = []
        self.read: list[int] = []
        self.written = 0

    def describe(self) -> str:
        return "recorded"

    def stream(self, prompt: Prompt, sampling: Sampling) -> Generator[Chunk | Finish]:
        ids = self.encode(prompt)
        same = next(
            (i for i, (a, b) in enumerate(zip(self._cache, ids, strict=False)) if a != b),
            min(len(self._cache), len(ids)),
        )
        self.read[-1] += len(ids) - min(same, len(ids) - 1)
        if sampling is summary.SAMPLING:
            text = "".join(
                event.text
                for event in self._real.stream(prompt, sampling)
                if isinstance(event, Chunk)
            )
            self.written += self.count(text)
        else:
            text = next(self._answers)
        self._cache = [*ids, *self.encode(Prompt(text, (), bos=False))]
        yield Chunk(text)
        yield Finish("stop", len(ids), same, self.count(text))

    def clear_cache(self) -> None:
        self._cache = []

    def unload(self) -> None:
        self._cache = []


def answers_of(preset: Any, engine: Any) -> list[str]:
    chat = Chat(
        preset,
        engine,
        History(None),
        Sampling(temperature=0, repetition_penalty=1.1, max_tokens=100),
    )
    for question in questions():
        for _ in chat.send(question):
            pass
    return [message.text for message in chat.conversation.messages if message.role == "assistant"]


def measure(
    preset: Any, engine: Any, answers: list[str], policy: str, low_water: float
) -> dict[str, float]:
    recorded = Recorded(engine, answers)
    named: Any = policy
    context = ContextPolicy(named, tokens=WINDOW, low_water=low_water, turns=8)
    chat = Chat(
        replace(preset, context=context),
        recorded,
        History(None),
        Sampling(temperature=0, max_tokens=100),
    )
    kept = []
    for question in questions():
        recorded.read.append(0)
        for _ in chat.send(question):
            pass
        assert chat.window
        kept.append(chat.window.tokens)
    full = recorded.read[20:]  # from where the window is full
    return {
        "read_mean": statistics.fmean(full),
        "read_median": statistics.median(full),
        "read_max": max(full),
        "sent_mean": statistics.fmean(kept[20:]),
        "written_for_summaries": recorded.written,
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--save", action="store_true")
    arguments = parser.parse_args()
    preset, engine = open_engine("int8")
    preset = replace(preset, context=ContextPolicy(tokens=WINDOW))
    answers = answers_of(preset, engine)
    rows = []
    print(
        f"{'policy':12} {'low water':>9} {'read a turn':>12} {'median':>7} {'max':>6}"
        f" {'sent a turn':>12} {'summaries wrote':>16}"
    )
    for policy, low_water in POLICIES:
        row = {"policy": policy, "low_water": low_water} | measure(
            preset, engine, answers, policy, low_water
        )
        rows.append(row)
        print(
            f"{policy:12} {low_water:9.2f} {row['read_mean']:12.0f} {row['read_median']:7.0f}"
            f" {row['read_max']:6.0f} {row['sent_mean']:12.0f}"
            f" {row['written_for_summaries']:16.0f}"
        )
    if arguments.save:
        about = {
            "command": "python benchmarks/context.py --save",
            "processor": processor(),
            "date": datetime.date.today().isoformat(),
        }
        path = Path(__file__).parent / "results" / "context.json"
        path.write_text(
            json.dumps(about | {"window": WINDOW, "turns": TURNS, "policies": rows}, indent=2)
            + "\n"
        )


if __name__ == "__main__":
    main()
