"""Rank a few texts by what they mean, without an index: what was said in one chat."""

from collections.abc import Callable, Sequence
from typing import Any

from llmchat.memory.need import least_similar
from llmchat.memory.types import Embedder, Hit, Passage


class Meaning:
    """Keeps the vector of each text that it has seen. open_embedder: is called at the first
    question; None for a machine without an embedder.
    """

    def __init__(self, open_embedder: Callable[[], Embedder | None]):
        self._open, self._opened = open_embedder, False
        self._embedder: Embedder | None = None
        self._vectors: dict[str, Any] = {}

    def nearest(self, question: str, passages: Sequence[Passage]) -> tuple[list[Hit], bool]:
        """The passages by their cosine, best first, and whether all of them fit the question.

        They do where the least cosine of the embedder was measured: the others are left out.
        """
        embedder = self._ready()
        if embedder is None or not passages:
            return [], False
        self._embed(embedder, [one.text for one in passages])
        (asked,) = embedder.embed_questions([question])
        hits = [Hit(one, float(self._vectors[one.text] @ asked)) for one in passages]
        least = least_similar(embedder.name)
        fitting = [hit for hit in hits if least is None or hit.score >= least]
        return sorted(fitting, key=lambda hit: -hit.score), least is not None

    def _ready(self) -> Embedder | None:
        if not self._opened:
            self._opened, self._embedder = True, self._open()
        return self._embedder

    def _embed(self, embedder: Embedder, texts: Sequence[str]) -> None:
        new = [text for text in dict.fromkeys(texts) if text not in self._vectors]
        if new:
            self._vectors.update(zip(new, embedder.embed_passages(new), strict=True))
