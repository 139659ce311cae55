#!/usr/bin/env python3
"""Time of list, search and open with 100,000 messages, as library calls on a fresh file.

usage: python benchmarks/history.py [--save]
"""

import argparse
import datetime
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from basics import processor

from llmchat.conversation import Message
from llmchat.history import History
from llmchat.history.imports import ImportedChat, ImportedMessage

SESSIONS, TURNS, WORDS = (
    500,
    100,
    [
        "the",
        "quick",
        "brown",
        "fox",
        "jumps",
        "over",
        "a",
        "lazy",
        "dog",
        "near",
        "the",
        "old",
        "river",
        "bank",
        "while",
        "it",
        "rains",
    ],
)


def fill(path: Path) -> list[str]:
    """500 sessions of 200 messages, and one more that holds 2,000."""
    with History(path) as history:
        return [
            history.import_chat(chat(number, 1000 if number == SESSIONS else TURNS)) or ""
            for number in range(SESSIONS + 1)
        ]


def chat(number: int, turns: int) -> ImportedChat:
    said = []
    for turn in range(turns):
        words = [WORDS[(turn * 7 + number * 3 + step) % len(WORDS)] for step in range(40)]
        said.append(
            ImportedMessage(Message("user", f"question {turn} of {number}: {' '.join(words)}"))
        )
        said.append(
            ImportedMessage(
                Message("assistant", f"answer {turn * number % 9973}: {' '.join(reversed(words))}")
            )
        )
    return ImportedChat(tuple(said), f"chat {number}")


def seconds(path: Path, act: Callable[[History], object]) -> float:
    """Median of seven, each on a connection of its own."""
    taken = []
    for _ in range(7):
        started = time.perf_counter()
        with History(path) as history:
            assert act(history)
        taken.append(time.perf_counter() - started)
    return statistics.median(taken)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--save", action="store_true")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "history.db"
        sessions = fill(path)
        result = {
            "list 20 sessions": seconds(path, lambda history: history.sessions(20)),
            "list all 501": seconds(path, lambda history: history.sessions()),
            "search a rare text": seconds(
                path, lambda history: history.search(f"question {TURNS - 1} of {SESSIONS - 1}:")
            ),
            "search a frequent word": seconds(path, lambda history: history.search("lazy")),
            "search two letters": seconds(path, lambda history: history.search("ox")),
            "open 200 messages": seconds(path, lambda history: history.conversation(sessions[250])),
            "open 2,000 messages": seconds(
                path, lambda history: history.conversation(sessions[-1])
            ),
        }
        size = path.stat().st_size
    for name, value in result.items():
        print(f"{name:24} {value:.3f} s")
    print(f"{'file':24} {size / 1e6:.0f} MB")
    if arguments.save:
        about = {
            "command": "python benchmarks/history.py --save",
            "processor": processor(),
            "date": datetime.date.today().isoformat(),
        }
        target = Path(__file__).parent / "results" / "history.json"
        target.write_text(
            json.dumps(
                about | {"messages": SESSIONS * TURNS * 2 + 2000, "seconds": result}, indent=2
            )
            + "\n"
        )


if __name__ == "__main__":
    main()
