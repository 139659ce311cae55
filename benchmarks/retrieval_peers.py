#!/usr/bin/env python3
"""The retrieval benchmark in other programs: sentence-transformers with sqlite-vec, and simonw/llm.

usage: python benchmarks/retrieval_peers.py sqlite-vec|llm MODEL PASSAGES QUESTIONS RESULT

Runs in an environment of their own, with sentence-transformers, sqlite-vec, llm and
llm-sentence-transformers (and pysqlite3-binary, because many Pythons have an
SQLite that loads no extensions); benchmarks/retrieval.py starts it. MODEL: a folder that
sentence-transformers opens. PASSAGES and QUESTIONS: JSON lists of texts. RESULT gets the numbers of
the best passages for each question, the processor seconds that adding took, and the seconds of the
searches.
"""

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

BEST = 10


def with_sqlite_vec(model: str, passages: list[str], questions: list[str]) -> dict[str, Any]:
    """What the two libraries' documentation shows: encode, insert, and `MATCH ? AND k = 10`."""
    import pysqlite3 as sqlite3
    import sqlite_vec
    from sentence_transformers import SentenceTransformer

    encoder = SentenceTransformer(model, device="cpu")
    database = sqlite3.connect(":memory:")
    database.enable_load_extension(True)
    sqlite_vec.load(database)
    width = encoder.get_embedding_dimension()
    database.execute(f"CREATE VIRTUAL TABLE v USING vec0(e float[{width}] distance_metric=cosine)")
    began = _cpu_seconds()
    vectors = encoder.encode(passages, batch_size=32)
    rows = [(number, vector.tobytes()) for number, vector in enumerate(vectors)]
    database.executemany("INSERT INTO v (rowid, e) VALUES (?, ?)", rows)
    added = _cpu_seconds() - began
    found = []
    began = time.perf_counter()
    for question in questions:
        query = "SELECT rowid FROM v WHERE e MATCH ? AND k = ? ORDER BY distance"
        near = database.execute(query, (encoder.encode(question).tobytes(), BEST))
        found.append([row[0] for row in near])
    return _result(found, added, time.perf_counter() - began)


def with_llm(model: str, passages: list[str], questions: list[str]) -> dict[str, Any]:
    """`llm embed-multi`, then the search that `llm similar` makes, in one process."""
    with tempfile.TemporaryDirectory() as room:
        os.environ["LLM_USER_PATH"] = room
        program = str(Path(sys.executable).with_name("llm"))
        subprocess.run(
            [program, "sentence-transformers", "register", model, "-a", "peer"], check=True
        )
        texts = Path(room) / "texts.json"
        texts.write_text(
            json.dumps([{"id": str(number), "text": text} for number, text in enumerate(passages)])
        )
        store = str(Path(room) / "store.db")
        began = _cpu_seconds()
        subprocess.run(
            [program, "embed-multi", "docs", str(texts), "-m", "peer", "-d", store], check=True
        )
        added = _cpu_seconds() - began
        import llm
        import sqlite_utils

        collection = llm.Collection("docs", sqlite_utils.Database(store), create=False)
        collection.similar(questions[0], BEST)
        began = time.perf_counter()
        found = [
            [int(entry.id) for entry in collection.similar(question, BEST)]
            for question in questions
        ]
        return _result(found, added, time.perf_counter() - began)


def _cpu_seconds() -> float:
    """Processor seconds of this process and of its children that have ended."""
    used = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(one.ru_utime + one.ru_stime for one in used)


def _result(found: list[list[int]], added: float, searched: float) -> dict[str, Any]:
    return {"found": found, "add_cpu_s": round(added, 1), "search_s": searched}


SYSTEMS = {"sqlite-vec": with_sqlite_vec, "llm": with_llm}


def main() -> None:
    system, model, passages, questions, result = sys.argv[1:]
    texts = [json.loads(Path(name).read_text("utf-8")) for name in (passages, questions)]
    Path(result).write_text(json.dumps(SYSTEMS[system](model, *texts)))


if __name__ == "__main__":
    main()
