"""What requests may search: the indexes of `serve --docs`, and the files of chats.

One search runs at a time, because indexes and embedders are not made for several threads.
"""

import logging
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from llmchat.docs_material import MOST_PASSAGES
from llmchat.errors import Mismatch, UsageError
from llmchat.memory import need
from llmchat.memory.index import Index
from llmchat.memory.places import existing_index
from llmchat.memory.readers import Document
from llmchat.memory.types import Hit
from llmchat.models.index_search import IndexSearch, first_passages
from llmchat.server.chat_files import ChatFiles
from llmchat.server.errors import Refusal
from llmchat.server.prompt_workers import PromptWorkers
from llmchat.settings import World

log = logging.getLogger("llmchat.server")
# Characters of a chat's files that are embedded while the user waits.
_MOST_EMBEDDED = 400_000


class UnknownDocs(Refusal):
    """The server does not offer this index."""

    status = 404

    def __init__(self, name: str, offered: Sequence[str]):
        others = ", ".join(f"`{one}`" for one in offered)
        known = f"it offers {others}" if others else "it offers none (`llmchat serve --docs NAME`)"
        message = f"this server does not offer the documents `{name[:100]}`; {known}"
        super().__init__(message, param="docs", code="docs_not_found")


class ServedDocuments:
    """names: the indexes that requests may search. All searches run in `workers`.

    Raises UsageError for an index that does not exist.
    """

    def __init__(self, world: World, names: Sequence[str], files: ChatFiles):
        self.names = tuple(dict.fromkeys(names))
        self.files = files
        self.workers = PromptWorkers(1)
        self._world = world
        self._open: dict[str, tuple[int, Index]] = {}
        self._searcher = IndexSearch(world, log.warning)
        for name in self.names:
            existing_index(world, name)

    def close(self) -> None:
        for _, index in self._open.values():
            index.close()
        self._open.clear()

    def sizes(self) -> list[tuple[str, int, int]]:
        """Name, number of documents and number of passages of each index."""
        indexes = [(name, self._index(name)) for name in self.names]
        return [(name, len(index.documents()), index.count()) for name, index in indexes]

    def check(self, names: Sequence[str]) -> None:
        """Raises UnknownDocs."""
        for name in names:
            if name not in self.names:
                raise UnknownDocs(name, self.names)

    def found(self, question: str, names: Sequence[str]) -> list[Hit]:
        """The passages of indexes that fit a question; none if it needs no search."""
        indexes = [self._index(name) for name in dict.fromkeys(names)]
        return self._searcher.fitting(indexes, question) if need.subject(question) else []

    def found_in_files(
        self, question: str, path: Path, documents: Sequence[Document], *, required: bool
    ) -> list[Hit]:
        """The passages of a chat's files for a question. path: of their index.

        required: the nearest ones, whether they fit or not.
        """
        with closing(Index.open(path, create=True, any_thread=True)) as index:
            self._fill(index, documents)
            if required:
                nearest = self._searcher.nearest([index], question)
                return nearest or first_passages(index, MOST_PASSAGES)
            return self._searcher.fitting([index], question) if need.subject(question) else []

    def _fill(self, index: Index, documents: Sequence[Document]) -> None:
        """Make the index hold these documents, and not those of other branches of the chat."""
        named = {one.source for one in documents}
        for one in index.documents():
            if one.source not in named:
                index.remove(one.source)
        short = sum(len(one.text) for one in documents) <= _MOST_EMBEDDED
        embedder = self._searcher.default_embedder() if short else None
        try:
            index.add(documents, embedder)
        except Mismatch:
            # Another embedder was pulled since the files were added.
            index.forget_vectors()
            index.add(documents, embedder)

    def _index(self, name: str) -> Index:
        """The index as it is now: it may have been removed, or made again."""
        try:
            path = existing_index(self._world, name)
        except UsageError:
            raise UnknownDocs(name, [one for one in self.names if one != name]) from None
        number = path.stat().st_ino
        if name in self._open and self._open[name][0] == number:
            return self._open[name][1]
        if name in self._open:
            self._open.pop(name)[1].close()
        self._open[name] = number, Index.open(path, any_thread=True)
        return self._open[name][1]
