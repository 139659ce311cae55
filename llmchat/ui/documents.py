"""The documents that a chat searches: indexes by name, and what was too large to attach."""

from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING

from llmchat.errors import LlmchatError, UsageError
from llmchat.memory import need
from llmchat.memory.types import Embedder, Hit
from llmchat.settings import World

if TYPE_CHECKING:
    from llmchat.memory.index import Index

# More passages are slow to read on a CPU, and small models lose the thread.
MOST_PASSAGES = 5
# Passages of a search that are looked at; those a user excluded are not among the best few.
_SEARCHED = 20


class Documents:
    """Searches some indexes for the questions of one chat.

    note: is called with what the user should know, once. Raises UsageError for an unknown index.
    """

    def __init__(self, world: World, names: Iterable[str] = ()):
        self._world = world
        self.note: Callable[[str], None] = lambda line: None
        self._open: dict[str, Index] = {}
        self._embedders: dict[str, Embedder | None] = {}
        self._closing = ExitStack()
        for name in names:
            self.use(name)

    @property
    def names(self) -> tuple[str, ...]:
        """The indexes that are searched."""
        return tuple(self._open)

    def use(self, name: str) -> None:
        """Search this index from now on."""
        from llmchat.memory.index import Index
        from llmchat.memory.places import existing_index

        if name not in self._open:
            self.add(name, Index.open(existing_index(self._world, name)))

    def add(self, name: str, index: "Index") -> None:
        """Search an index that is open, and close it with the others."""
        self._open[name] = self._closing.enter_context(index)

    def stop(self, name: str = "") -> None:
        """Search an index no longer; without a name, none."""
        if not name:
            self._open.clear()
        elif self._open.pop(name, None) is None:
            raise UsageError(f"`{name}` is not searched", "`/docs` lists the indexes")

    def close(self) -> None:
        self._open.clear()
        self._closing.close()

    def __enter__(self) -> "Documents":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def search(self, question: str) -> list[Hit]:
        """The passages for a question, the best first; none if it needs no search."""
        if not need.subject(question):
            return []
        found = [self._found(index, question) for index in self._open.values()]
        return _joined([hits for hits in found if hits])

    def _found(self, index: "Index", question: str) -> list[Hit]:
        """The hits in one index; none if not even the best fits the question."""
        embedder = self._embedder(index)
        hits = index.search(question, _SEARCHED, embedder)
        if need.shared(question, hits) >= need.LEAST_SHARED:
            return hits
        if embedder is None or not hits:
            return []
        nearest = index.search(question, 1, embedder, mode="meaning")
        return hits if nearest and nearest[0].score >= need.least_similar(embedder.name) else []

    def _embedder(self, index: "Index") -> Embedder | None:
        """The embedder that the vectors of an index are from; None to search by words."""
        name = index.embedder
        if name and name not in self._embedders:
            self._embedders[name] = self._opened(name)
        return self._embedders.get(name)

    def _opened(self, name: str) -> Embedder | None:
        from llmchat.models.embedding import open_embedder  # type: ignore

        try:
            embedder: Embedder = open_embedder(self._world, name)
            return embedder
        except LlmchatError as error:
            hint = f"; {error.hint}" if error.hint else ""
            self.note(f"searching by words alone: {error.message}{hint}")
            return None


def _joined(found: Sequence[list[Hit]]) -> list[Hit]:
    """The hits of several indexes by their rank, because scores of two searches do not compare."""
    ranked = [
        (rank, number, hit) for number, hits in enumerate(found) for rank, hit in enumerate(hits)
    ]
    return [hit for _, _, hit in sorted(ranked, key=lambda one: one[:2])]
