"""The questions of the retrieval benchmark, and when a passage answers one."""

import re
import tomllib
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

from msgspec import Struct, convert
from msgspec.structs import replace

PATH = Path(__file__).parent / "data" / "retrieval" / "questions.toml"
Span = tuple[int, int]


class Question(Struct, frozen=True):
    """A question, and the text that answers it. answer: a pattern of a right short answer."""

    ask: str
    document: str
    anchor: str
    kind: str = ""
    language: str = "en"
    answer: str = ""


class WithoutAnswer(Struct, frozen=True):
    """Messages that no passage answers. chat: talk about the chat itself."""

    questions: list[str]
    chat: list[str]


class Questions(Struct, frozen=True, forbid_unknown_fields=True):
    """question: in English; foreign: in German, French and Korean."""

    question: list[Question]
    foreign: list[Question]
    without_answer: WithoutAnswer


class Found(Struct, frozen=True):
    """A passage that a search found: characters `start` to `end` of a document."""

    document: str
    start: int
    end: int


def load() -> Questions:
    return convert(tomllib.loads(PATH.read_text("utf-8")), Questions)


def restricted(questions: Questions, documents: Collection[str]) -> Questions:
    """The questions that these documents answer, and those that none answers."""
    question, foreign = (
        [one for one in group if one.document in documents]
        for group in (questions.question, questions.foreign)
    )
    return Questions(question, foreign, questions.without_answer)


def quoting(questions: Sequence[Question]) -> list[Question]:
    """The same answers, asked for with the first six words of the passage itself."""
    return [replace(one, ask=" ".join(one.anchor.split()[:6])) for one in questions]


def anchor_spans(text: str, anchor: str) -> list[Span]:
    """Every place of an anchor in a text, whatever white space is between its words."""
    pattern = r"\s+".join(map(re.escape, anchor.split()))
    return [one.span() for one in re.finditer(pattern, text)]


def answers(found: Found, question: Question, spans: Iterable[Span]) -> bool:
    """Whether a passage holds at least half of an anchor."""
    return found.document == question.document and any(
        2 * (min(found.end, end) - max(found.start, start)) >= end - start for start, end in spans
    )


def first_rank(found: Sequence[Found], question: Question, spans: Sequence[Span]) -> int | None:
    """The place of the first passage that answers, from 1; None if none does."""
    ranks = (rank for rank, one in enumerate(found, 1) if answers(one, question, spans))
    return next(ranks, None)


def recall(ranks: Sequence[int | None], most: int) -> float:
    """The fraction of questions with an answer among the first `most` passages."""
    return sum(rank is not None and rank <= most for rank in ranks) / len(ranks)


def mean_reciprocal_rank(ranks: Sequence[int | None], most: int = 10) -> float:
    """The mean of 1/rank, where an answer behind place `most` counts as none."""
    return sum(1 / rank for rank in ranks if rank and rank <= most) / len(ranks)


def fused(
    rankings: Sequence[Sequence[Found]], constant: float, weights: Sequence[float]
) -> list[Found]:
    """Reciprocal rank fusion: passages by the sum of weight / (constant + rank), best first."""
    scores: dict[Found, float] = {}
    for ranking, weight in zip(rankings, weights, strict=True):
        for rank, one in enumerate(ranking, 1):
            scores[one] = scores.get(one, 0.0) + weight / (constant + rank)
    return sorted(scores, key=lambda one: -scores[one])
