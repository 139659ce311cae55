"""The values of a search: passages of documents, and how well they fit a question."""

from collections.abc import Sequence
from typing import Any, Protocol

from msgspec import Struct


class Passage(Struct, frozen=True, omit_defaults=True):
    """A piece of a document.

    source: the path or address of the document. start, end: characters of its text. heading: of
    the section that it is in.
    """

    source: str
    start: int
    end: int
    text: str
    heading: str = ""


class Hit(Struct, frozen=True):
    """A passage that a search found. score: higher is better; comparable within one search."""

    passage: Passage
    score: float


class Embedder(Protocol):
    """Turns texts into vectors of length 1, whose dot product says how near their meanings are.

    name: of its preset. width: numbers of a vector. longest: most tokens of a text; longer ones are
    cut. Vectors are float32 numpy arrays [texts, width]. Questions and passages have prefixes of
    their own, as the model was trained.
    """

    name: str
    width: int
    longest: int

    def count(self, text: str) -> int:
        """Tokens of a passage, without its prefix and special tokens."""
        ...

    def embed_questions(self, texts: Sequence[str]) -> Any: ...

    def embed_passages(self, texts: Sequence[str]) -> Any: ...


class Reranker(Protocol):
    """Scores passages for a question by reading both together."""

    name: str

    def scores(self, question: str, passages: Sequence[str]) -> Sequence[float]:
        """One score for each passage; higher is better."""
        ...
