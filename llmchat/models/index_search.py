"""Search open indexes for a question, each with the embedder that its vectors are from."""

from collections.abc import Callable, Sequence

from llmchat.errors import LlmchatError
from llmchat.memory import need
from llmchat.memory.index import Index
from llmchat.memory.types import Embedder, Hit
from llmchat.models.embedding import open_embedder
from llmchat.settings import World

# Passages of a search that are looked at; those a user excluded are not among the best few.
_SEARCHED = 20


class IndexSearch:
    """Keeps the embedders that it has opened. note: is called with what the user should know."""

    def __init__(self, world: World, note: Callable[[str], None]):
        self._world, self._note = world, note
        self._embedders: dict[str, Embedder | None] = {}

    def default_embedder(self) -> Embedder | None:
        """The embedder for new indexes; None if there is none on this machine."""
        if "" not in self._embedders:
            self._embedders[""] = self._opened("")
        if embedder := self._embedders[""]:
            self._embedders[embedder.name] = embedder
        return self._embedders[""]

    def fitting(self, indexes: Sequence[Index], question: str) -> list[Hit]:
        """The passages that fit a question, best first."""
        found = [
            need.fitting(index, question, _SEARCHED, self._embedder(index)) for index in indexes
        ]
        return joined(found)

    def nearest(self, indexes: Sequence[Index], question: str) -> list[Hit]:
        """The passages that are nearest to a question, whether they fit it or not."""
        found = [index.search(question, _SEARCHED, self._embedder(index)) for index in indexes]
        return joined(found)

    def _embedder(self, index: Index) -> Embedder | None:
        """The embedder that the vectors of an index are from; None to search by words."""
        name = index.embedder
        if name and name not in self._embedders:
            self._embedders[name] = self._opened(name)
        return self._embedders.get(name)

    def _opened(self, name: str) -> Embedder | None:
        try:
            return open_embedder(self._world, name)
        except LlmchatError as error:
            hint = f"; {error.hint}" if error.hint else ""
            self._note(f"searching by words alone: {error.message}{hint}")
            return None


def first_passages(index: Index, limit: int) -> list[Hit]:
    """The first passages of an index, for a question that shares no word with any."""
    first = (index.passages_of(one.source)[:limit] for one in index.documents())
    return [Hit(passage, 0.0) for passages in first for passage in passages][:limit]


def joined(found: Sequence[list[Hit]]) -> list[Hit]:
    """The hits of several indexes by their rank, because scores of two searches do not compare."""
    ranked = [
        (rank, number, hit) for number, hits in enumerate(found) for rank, hit in enumerate(hits)
    ]
    return [hit for _, _, hit in sorted(ranked, key=lambda one: one[:2])]
