"""The documents that a chat searches: indexes by name, and what was too large to attach."""

import hashlib
import tempfile
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from llmchat.docs_material import MOST_PASSAGES
from llmchat.errors import UsageError
from llmchat.memory import need
from llmchat.memory.types import Embedder, Hit
from llmchat.output.progress import ByteProgress
from llmchat.settings import World, private_folder

if TYPE_CHECKING:
    from llmchat.history import Session
    from llmchat.memory.index import Index
    from llmchat.memory.readers import Document
    from llmchat.models.index_search import IndexSearch

# The name of the index of what was too large to attach, before its number.
ATTACHED = "attached"
# Indexes of such material that stay on this machine.
_KEPT = 20
# Characters of such material that are embedded while the user waits.
_MOST_EMBEDDED = 400_000


class Documents:
    """Searches some indexes for the questions of one chat.

    note: is called with what the user should know, once. keep: whether the index of what was too
    large to attach may stay on this machine. Raises UsageError for an unknown index.
    """

    def __init__(self, world: World, names: Iterable[str] = (), *, keep: bool = True):
        self._world, self._keep = world, keep
        self.note: Callable[[str], None] = lambda line: None
        self._attached: list[str] = []
        self._open: dict[str, Index] = {}
        self._search: IndexSearch | None = None
        self._closing = ExitStack()
        for name in names:
            self.use(name)

    @property
    def names(self) -> tuple[str, ...]:
        """The indexes that are searched."""
        return tuple(self._open)

    @property
    def named(self) -> tuple[str, ...]:
        """Those of them that have a name of their own."""
        return tuple(name for name in self._open if not name.startswith(f"{ATTACHED} "))

    def resume(self, session: "Session") -> None:
        """Search what a saved chat searched, too; a note names what is no longer there.

        A chat from a file of others may not choose what is read here.
        """
        for name in () if session.imported else session.settings.get("docs", ()):
            try:
                self.use(str(name))
            except UsageError as error:
                self.note(f"this chat searched `{name}`: {error.message}")

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

    def attach(self, documents: "Sequence[Document]") -> None:
        """Index documents for this chat, and search them."""
        from llmchat.memory.index import Index

        path = self._attached_path(documents)
        if str(path) not in self._attached:
            self._attached.append(str(path))
            index = Index.open(path, create=True)
            progress = ByteProgress(self._world)
            try:
                index.add(documents, self._embedder_for(documents), progress)
            finally:
                progress.close()
            self.add(f"{ATTACHED} {len(self._attached)}", index)

    def _attached_path(self, documents: "Sequence[Document]") -> Path:
        """The file of the index of these documents: the same one for the same texts."""
        mark = hashlib.sha256()
        for one in documents:
            mark.update(f"{one.source}\0{len(one.text)}\0{one.text}".encode())
        folder = self._world.cache / "material"
        if not self._keep:
            folder = Path(self._closing.enter_context(tempfile.TemporaryDirectory()))
        private_folder(folder)
        _remove_oldest(folder)
        return folder / f"{mark.hexdigest()[:32]}.sqlite"

    def search(self, question: str, *, required: bool = False) -> list[Hit]:
        """The passages for a question, the best first; none if it needs no search.

        required: the passages nearest to it in any case, or else the first ones.
        """
        indexes = list(self._open.values())
        if required:
            return self._nearest(indexes, question)
        if not need.subject(question):
            return []
        hits = self._searcher.fitting(indexes, question)
        if not hits:
            self.note(f"nothing in {', '.join(self._open)} fits the question")
        return hits

    def _nearest(self, indexes: "Sequence[Index]", question: str) -> list[Hit]:
        from llmchat.models.index_search import first_passages

        nearest = self._searcher.nearest(indexes, question)
        return nearest or first_passages(indexes[-1], MOST_PASSAGES)

    @property
    def _searcher(self) -> "IndexSearch":
        from llmchat.models.index_search import IndexSearch

        if self._search is None:
            self._search = IndexSearch(self._world, lambda line: self.note(line))
        return self._search

    def _embedder_for(self, documents: "Sequence[Document]") -> Embedder | None:
        """The default embedder, for texts that it reads in a minute or two."""
        if sum(len(one.text) for one in documents) > _MOST_EMBEDDED:
            self.note(
                "the text is long, so it is searched by words alone; `llmchat index add NAME PATH`"
                " and `--docs NAME` search it by meaning"
            )
            return None
        return self._searcher.default_embedder()


def _remove_oldest(folder: Path) -> None:
    """Keep the indexes of the last materials: the next question about them is answered at once."""
    indexes = sorted(folder.glob("*.sqlite"), key=lambda path: path.stat().st_mtime)
    for path in indexes[:-_KEPT]:
        for one in folder.glob(f"{path.name}*"):
            one.unlink(missing_ok=True)
