#!/usr/bin/env python3
"""`llmchat batch` with sixteen answers at once against one after the other, the default model.

usage: python benchmarks/batch.py [--model MODEL] [--lines N] [--rounds N] [--save]
           [--vllm COMMAND --vllm-model FOLDER [--vllm-dtype TYPE]]

Both are whole commands on the same file, in turns; seconds include the start and the loading of
the model. The answers must be equal to the letter. COMMAND is the python of an environment that has
vLLM for CPUs, which then runs the same prompts with the 16-bit checkpoint in FOLDER, also in turns;
its seconds are those of the batch alone, after a warm-up. --save writes
benchmarks/results/batch.json.
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


def batch(model: str, source: Path, target: Path, parallel: int) -> float:
    """Seconds of a whole command."""
    started = time.perf_counter()
    command = [sys.executable, "-m", "llmchat", "batch", str(source), "-o", str(target), "-q"]
    settings = ["-m", model, "--temperature", "0", "--max-tokens", str(TOKENS)]
    subprocess.run([*command, *settings, "--parallel", str(parallel)], check=True)
    return time.perf_counter() - started


def vllm(given: argparse.Namespace, source: Path) -> float:
    """Tokens a second of vLLM's offline batch."""
    command = [given.vllm, str(HERE / "batch_vllm.py"), given.vllm_model, given.vllm_dtype]
    done = subprocess.run(
        [*command, str(TOKENS)], stdin=source.open(), stdout=subprocess.PIPE, text=True, check=True
    )
    # Its processes also log to stdout.
    found = json.loads([line for line in done.stdout.splitlines() if line.startswith("{")][-1])
    return float(found["tokens"] / found["seconds"])


def measure(given: argparse.Namespace) -> dict[str, Any]:
    lines, rounds, model = given.lines, given.rounds, given.model
    seconds: dict[int, list[float]] = {1: [], 16: []}
    of_vllm: list[float] = []
    with tempfile.TemporaryDirectory() as place:
        source = Path(place) / "in.jsonl"
        asked = (f"Write a story about {TOPICS[n % 8]}, number {n}." for n in range(lines))
        source.write_text("".join(json.dumps({"prompt": text}) + "\n" for text in asked))
        texts: dict[int, list[str]] = {}
        for turn in range(rounds):
            for parallel, taken in seconds.items():
                target = Path(place) / f"{turn}-{parallel}.jsonl"
                taken.append(batch(model, source, target, parallel))
                rows = [json.loads(row) for row in target.read_text().splitlines()]
                texts[parallel] = [row["text"] for row in rows]
                tokens = sum(row["usage"]["completion_tokens"] for row in rows)
            if given.vllm:
                of_vllm.append(vllm(given, source))
        empty = Path(place) / "empty.jsonl"
        empty.touch()
        load = statistics.median(batch(model, empty, Path(place) / "no", 1) for _ in range(3))
    one, many = (statistics.median(taken) for taken in seconds.values())
    return {
        "model": model, "lines": lines, "tokens": tokens, "same answers": texts[1] == texts[16],
        "one by one, s": one, "sixteen at once, s": many, "start, s": load,
        "ratio": one / many, "ratio without the start": (one - load) / (many - load),
        "tokens a second": tokens / (many - load),
        "vLLM, tokens a second": statistics.median(of_vllm) if of_vllm else None,
        "vLLM, numbers": given.vllm_dtype if of_vllm else None,
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--lines", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--vllm")
    parser.add_argument("--vllm-model")
    parser.add_argument("--vllm-dtype", default="bfloat16")
    parser.add_argument("--save", action="store_true")
    given = parser.parse_args()
    if given.vllm and not given.vllm_model:
        parser.error("--vllm requires --vllm-model")
    found = measure(given)
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
