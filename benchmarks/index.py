#!/usr/bin/env python3
"""Time and memory of an index: searching 100,000 passages, and adding 10 MB of text.

usage: python benchmarks/index.py [--megabytes N] [--no-embedder] [--save]

The text is Python's standard library. Searches use random vectors of 384 numbers, whose search
takes as long as that of real ones; the time to embed the question comes on top and is listed apart.
Adding uses the embedder all-minilm-l6-v2 (`llmchat pull all-minilm-l6-v2`), and words alone.
"""

import argparse
import datetime
import json
import os
import shutil
import statistics
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from basics import processor

from llmchat.memory import stored
from llmchat.memory.database import Database
from llmchat.memory.index import Index
from llmchat.memory.readers import Document
from llmchat.memory.types import Passage

PASSAGES, WIDTH, ROUNDS = 100_000, 384, 15
EMBEDDER = "all-minilm-l6-v2"
QUESTIONS = (
    "how do I read a file line by line",
    "default timeout of a socket connection when none is given",
    "zipimport cache",
    "what is the difference between a process and a thread",
)


class RandomVectors:
    """An embedder whose vectors mean nothing."""

    name, width, longest = "random", WIDTH, 512

    def __init__(self) -> None:
        self._random = np.random.default_rng(1)

    def count(self, text: str) -> int:
        return len(text.split())

    def embed_questions(self, texts: list[str]) -> np.ndarray:
        found = self._random.standard_normal((len(texts), WIDTH), np.float32)
        return found / np.linalg.norm(found, axis=1, keepdims=True)

    embed_passages = embed_questions


def source_files() -> list[Path]:
    return sorted(Path(sysconfig.get_paths()["stdlib"]).rglob("*.py"))


def texts(length: int = 1000) -> list[str]:
    """Pieces of Python's standard library."""
    found = []
    for path in source_files():
        text = path.read_text("utf-8", "replace")
        found += [text[start : start + length] for start in range(0, len(text), length)]
    return found


def fill(path: Path) -> None:
    """An index of 100,000 passages, 100 a document."""
    pieces, embedder = texts(), RandomVectors()
    database = Database(path, create=True)
    with Index(database) as index:
        index.add([Document("first", "text")], embedder)
        for number in range(PASSAGES // 100):
            chosen = [pieces[(number * 100 + one) % len(pieces)] for one in range(100)]
            passages = [
                Passage(f"d{number}", one, one + 1, text) for one, text in enumerate(chosen)
            ]
            facts = stored.Stored(f"d{number}", "", 1, 1, 100, "")
            with database.transaction():
                stored.insert(database, facts, passages, embedder.embed_passages(chosen))


def milliseconds(act: Callable[[], object]) -> dict[str, float]:
    """First, median and least of some rounds; cpu: median of the time of all threads together."""
    taken, worked = [], []
    for _ in range(ROUNDS):
        started, before = time.perf_counter(), time.process_time()
        act()
        taken.append((time.perf_counter() - started) * 1000)
        worked.append((time.process_time() - before) * 1000)
    values = {
        "first": taken[0], "median": statistics.median(taken[1:]), "least": min(taken),
        "cpu": statistics.median(worked[1:]),
    }  # fmt: skip
    return {name: round(value, 1) for name, value in values.items()}


def searched(path: str) -> dict[str, object]:
    """Run in a process of its own: the times of searches, and the peak memory."""
    embedder = RandomVectors()
    with Index.open(Path(path)) as index:
        loading = milliseconds(lambda: index.search("x", 10, embedder))["first"]
        found: dict[str, object] = {"load vectors": loading}
        for mode in ("words", "meaning", "hybrid"):
            times = [
                milliseconds(lambda q=q, m=mode: index.search(q, 10, embedder, mode=m))
                for q in QUESTIONS
            ]
            found[mode] = {
                key: round(statistics.median(one[key] for one in times), 1) for key in times[0]
            }
    return found | {"peak MB": peak()}


def peak() -> int:
    """Megabytes. getrusage would include what the parent had when it started this process."""
    status = Path("/proc/self/status").read_text()
    return round(int(status.partition("VmHWM:")[2].split()[0]) / 1000)


def apart(function: str, *arguments: str) -> dict[str, object]:
    """What a function of this file returns in a process of its own."""
    code = f"import json, sys, index; print(json.dumps(index.{function}(*sys.argv[1:])))"
    # As in the program: spinning threads would count as work.
    env = os.environ | {"PYTHONPATH": str(Path(__file__).parent), "GOMP_SPINCOUNT": "5000"}
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], env=env, stdout=subprocess.PIPE, check=True
    )
    return json.loads(done.stdout)


def gather(folder: Path, size: int) -> None:
    """Copy source files of `size` bytes in all."""
    folder.mkdir()
    for number, path in enumerate(source_files()):
        if size <= 0:
            return
        shutil.copy(path, folder / f"{number}_{path.name}")
        size -= path.stat().st_size


def added(folder: str, embedder: str) -> dict[str, object]:
    """Run in a process of its own: the time of adding a folder, and the peak memory."""
    from llmchat.models.embedding import open_embedder
    from llmchat.settings import World

    model = open_embedder(World.real(), embedder) if embedder else None
    with (
        tempfile.TemporaryDirectory() as place,
        Index.open(Path(place) / "a.sqlite", create=True) as index,
    ):
        started = time.perf_counter()
        done = index.add([Path(folder)], model)
        seconds = round(time.perf_counter() - started, 1)
    return {
        "files": done.read, "passages": done.passages, "seconds": seconds,
        "peak MB": peak(),
    }  # fmt: skip


def question_time(embedder: str) -> dict[str, float]:
    """Milliseconds of embedding a question."""
    from llmchat.models.embedding import open_embedder
    from llmchat.settings import World

    model = open_embedder(World.real(), embedder)
    return milliseconds(lambda: model.embed_questions([QUESTIONS[0]]))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--megabytes", type=float, default=10)
    parser.add_argument("--no-embedder", action="store_true")
    parser.add_argument("--save", action="store_true")
    given = parser.parse_args()
    result: dict[str, object] = {}
    with tempfile.TemporaryDirectory() as place:
        path, folder = Path(place) / "large.sqlite", Path(place) / "docs"
        fill(path)
        result["search 100,000 passages, ms"] = apart("searched", str(path))
        result["file MB"] = round(path.stat().st_size / 1e6)
        gather(folder, round(given.megabytes * 1e6))
        result[f"add {given.megabytes:g} MB, words alone"] = apart("added", str(folder), "")
        if not given.no_embedder:
            result["embed a question, ms"] = apart("question_time", EMBEDDER)
            result[f"add {given.megabytes:g} MB, {EMBEDDER}"] = apart(
                "added", str(folder), EMBEDDER
            )
    print(json.dumps(result, indent=2))
    if given.save:
        about = {
            "command": "python benchmarks/index.py --save", "processor": processor(),
            "cores": os.cpu_count(), "load": os.getloadavg()[0],
            "date": datetime.date.today().isoformat(),
        }  # fmt: skip
        target = Path(__file__).parent / "results" / "index.json"
        target.write_text(json.dumps(about | result, indent=2) + "\n")


if __name__ == "__main__":
    main()
