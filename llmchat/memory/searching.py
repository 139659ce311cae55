"""Search an index: by words (BM25), by meaning (cosine), or by both with reciprocal rank fusion."""

from collections.abc import Iterable, Sequence
from typing import Any, Literal

from msgspec.structs import replace

from llmchat.errors import UsageError
from llmchat.memory import words
from llmchat.memory.database import Database
from llmchat.memory.types import Embedder, Hit, Passage, Reranker
from llmchat.memory.vectors import Matrix, check_embedder, embedder_of

Mode = Literal["hybrid", "words", "meaning"]
Ranked = list[tuple[int, float]]

# Passages that each way of searching contributes to a fusion, and those that a reranker reads.
_CANDIDATES = 50
_RERANKED = 30
# How little the first ranks differ. Measured: docs/retrieval.md; 60 is that of Cormack, Clarke and
# Büttcher (2009), who fused longer rankings.
_RRF_K = 5
_BY_WORDS = "SELECT rowid, -bm25(words) FROM words WHERE words MATCH ? ORDER BY rank LIMIT ?"
_PASSAGES = """
SELECT passages.id, source, start, end, text, heading
FROM passages JOIN documents ON documents.id = document WHERE passages.id IN ({})
"""


def with_heading(passage: Passage) -> str:
    """A passage as a model reads it."""
    return f"{passage.heading}\n{passage.text}" if passage.heading else passage.text


class Search:
    """Answers questions from an index; keeps its vectors in memory from the first question on."""

    def __init__(self, database: Database):
        self._database = database
        self._matrix: Matrix | None = None
        self._state: Any = None
        self._common = words.CommonWords(database)

    def find(
        self,
        question: str,
        limit: int,
        embedder: Embedder | None,
        reranker: Reranker | None,
        mode: Mode,
    ) -> list[Hit]:
        """The best passages, best first. Raises UsageError and Mismatch."""
        if not question.strip() or limit < 1:
            return []
        wanted = max(limit, _RERANKED) if reranker else limit
        hits = self._passages(self._ranked(question, wanted, embedder, mode))
        return _reranked(question, hits, reranker)[:limit] if reranker else hits[:limit]

    def _ranked(self, question: str, limit: int, embedder: Embedder | None, mode: Mode) -> Ranked:
        if mode == "words" or (mode == "hybrid" and not self._has_vectors(embedder)):
            return self._by_words(question, limit)
        if mode == "meaning":
            return self._by_meaning(question, limit, self._checked(embedder))
        most = max(limit, _CANDIDATES)
        by_meaning = self._by_meaning(question, most, self._checked(embedder))
        return fused([self._by_words(question, most), by_meaning])[:limit]

    def _has_vectors(self, embedder: Embedder | None) -> bool:
        return embedder is not None and bool(embedder_of(self._database)[0])

    def _checked(self, embedder: Embedder | None) -> Embedder:
        name = self._database.path.stem
        if embedder is None:
            raise UsageError("a search by meaning requires an embedder")
        if not embedder_of(self._database)[0]:
            raise UsageError(
                f"the index {name} has no vectors", f"`llmchat index update {name}` computes them"
            )
        check_embedder(self._database, embedder)
        return embedder

    def _by_words(self, question: str, limit: int) -> Ranked:
        phrases = self._common.without(words.terms(question), self._now())
        query = words.query(phrases)
        return self._database.rows(_BY_WORDS, (query, limit)) if query else []

    def _by_meaning(self, question: str, limit: int, embedder: Embedder) -> Ranked:
        (vector,) = embedder.embed_questions([question])
        return self._vectors(embedder.width).nearest(vector, limit)

    def _vectors(self, width: int) -> Matrix:
        """The vectors as they are now: read again after anybody has written."""
        state = self._now()
        if self._matrix is None or state != self._state:
            self._matrix = None
            self._matrix, self._state = Matrix(self._database, width), state
        return self._matrix

    def _now(self) -> tuple[int, int]:
        """Differs after anybody has written."""
        return self._database.changes(), self._database.connection.total_changes

    def _passages(self, ranked: Ranked) -> list[Hit]:
        """The passages behind numbers; one that was removed meanwhile is left out."""
        marks = ",".join("?" * len(ranked))
        numbers = [number for number, _ in ranked]
        rows = self._database.rows(_PASSAGES.format(marks), numbers)
        found = {number: Passage(*rest) for number, *rest in rows}
        return [Hit(found[number], score) for number, score in ranked if number in found]


def fused(rankings: Iterable[Ranked]) -> Ranked:
    """Reciprocal rank fusion: the sum of 1 / (5 + rank) over the rankings, best first."""
    scores: dict[int, float] = {}
    for ranking in rankings:
        for rank, (number, _) in enumerate(ranking, 1):
            scores[number] = scores.get(number, 0.0) + 1 / (_RRF_K + rank)
    return sorted(scores.items(), key=lambda one: -one[1])


def _reranked(question: str, hits: Sequence[Hit], reranker: Reranker) -> list[Hit]:
    if not hits:
        return []
    scores = reranker.scores(question, [with_heading(hit.passage) for hit in hits])
    rescored = (replace(hit, score=float(score)) for hit, score in zip(hits, scores, strict=True))
    return sorted(rescored, key=lambda hit: -hit.score)
