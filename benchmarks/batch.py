#!/usr/bin/env python3
"""`llmchat batch` with sixteen answers at once against one after the other, the default model.

usage: python benchmarks/batch.py [--lines N] [--rounds N] [--save]   needs `llmchat pull smollm2`

Both are whole commands on the same file, in turns; seconds include the start and the loading of
the model. The answers must be equal to the letter. --save writes benchmarks/results/batch.json.
"""

import argparse
import datetime
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from basics import processor

HERE = Path(__file__).parent
TOPICS = ("foxes", "rivers", "clocks", "bread", "winter", "maps", "trains", "gardens")
TOKENS = 64


def batch(source: Path, target: Path, parallel: int) -> float:
    """Seconds of a whole command."""
    started = time.perf_counter()
    command = [sys.executable, "-m", "llmchat", "batch", str(source), "-o", str(target), "-q"]
    settings = ["-m", "smollm2", "--temperature", "0", "--max-tokens", str(TOKENS)]
    subprocess.run([*command, *settings, "--parallel", str(parallel)], check=True)
    return time.perf_counter() - started


def measure(lines: int, rounds: int) -> dict[str, Any]:
    seconds: dict[int, list[float]] = {1: [], 16: []}
    with tempfile.TemporaryDirectory() as place:
        source = Path(place) / "in.jsonl"
        asked = (f"Write a story about {TOPICS[n % 8]}, number {n}." for n in range(lines))
        source.write_text("".join(json.dumps({"prompt": text}) + "\n" for text in asked))
        texts: dict[int, list[str]] = {}
        for turn in range(rounds):
            for parallel, taken in seconds.items():
                target = Path(place) / f"{turn}-{parallel}.jsonl"
                taken.append(batch(source, target, parallel))
                rows = [json.loads(row) for row in target.read_text().splitlines()]
                texts[parallel] = [row["text"] for row in rows]
                tokens = sum(row["usage"]["completion_tokens"] for row in rows)
        empty = Path(place) / "empty.jsonl"
        empty.touch()
        load = statistics.median(batch(empty, Path(place) / "no", 1) for _ in range(3))
    one, many = (statistics.median(taken) for taken in seconds.values())
    return {
        "lines": lines, "tokens": tokens, "same answers": texts[1] == texts[16],
        "one by one, s": one, "sixteen at once, s": many, "start, s": load,
        "ratio": one / many, "ratio without the start": (one - load) / (many - load),
        "tokens a second": tokens / (many - load),
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--lines", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--save", action="store_true")
    given = parser.parse_args()
    found = measure(given.lines, given.rounds)
    print(json.dumps(found, indent=2))
    if given.save:
        about = {
            "command": "python benchmarks/batch.py", "date": datetime.date.today().isoformat(),
            "processor": processor(), "cores": os.cpu_count(), "rounds": given.rounds,
        }  # fmt: skip
        target = HERE / "results" / "batch.json"
        target.write_text(json.dumps(about | found, indent=2) + "\n")


if __name__ == "__main__":
    main()
