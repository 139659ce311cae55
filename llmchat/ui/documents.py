"""The documents that a chat searches: indexes by name, and what was too large to attach."""

import hashlib
import tempfile
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from llmchat.errors import LlmchatError, UsageError
from llmchat.memory import need
from llmchat.memory.types import Embedder, Hit
from llmchat.output.progress import ByteProgress
from llmchat.settings import World, private_folder

if TYPE_CHECKING:
    from llmchat.memory.index import Index
    from llmchat.memory.readers import Document

# The name of the index of what was too large to attach, before its number.
ATTACHED = "attached"
# Indexes of such material that stay on this machine.
_KEPT = 20
# Characters of such material that are embedded while the user waits.
_MOST_EMBEDDED = 400_000
# More passages are slow to read on a CPU, and small models lose the thread.
MOST_PASSAGES = 5
# Passages of a search that are looked at; those a user excluded are not among the best few.
_SEARCHED = 20


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
        if required:
            found = [
                index.search(question, _SEARCHED, self._embedder(index))
                for index in self._open.values()
            ]
            return _joined(found) or self._first_passages()
        if not need.subject(question):
            return []
        hits = _joined([self._found(index, question) for index in self._open.values()])
        if not hits:
            self.note(f"nothing in {', '.join(self._open)} fits the question")
        return hits

    def _first_passages(self) -> list[Hit]:
        """The first passages of the index that was opened last."""
        index = list(self._open.values())[-1]
        first = (index.passages_of(one.source)[:MOST_PASSAGES] for one in index.documents())
        return [Hit(passage, 0.0) for passages in first for passage in passages][:MOST_PASSAGES]

    def _found(self, index: "Index", question: str) -> list[Hit]:
        return need.fitting(index, question, _SEARCHED, self._embedder(index))

    def _embedder_for(self, documents: "Sequence[Document]") -> Embedder | None:
        """The default embedder, for texts that it reads in a minute or two."""
        if sum(len(one.text) for one in documents) > _MOST_EMBEDDED:
            self.note(
                "the text is long, so it is searched by words alone; `llmchat index add NAME PATH`"
                " and `--docs NAME` search it by meaning"
            )
            return None
        if "" not in self._embedders:
            self._embedders[""] = self._opened("")
        if embedder := self._embedders[""]:
            self._embedders[embedder.name] = embedder
        return self._embedders[""]

    def _embedder(self, index: "Index") -> Embedder | None:
        """The embedder that the vectors of an index are from; None to search by words."""
        name = index.embedder
        if name and name not in self._embedders:
            self._embedders[name] = self._opened(name)
        return self._embedders.get(name)

    def _opened(self, name: str) -> Embedder | None:
        from llmchat.models.embedding import open_embedder

        try:
            return open_embedder(self._world, name)
        except LlmchatError as error:
            hint = f"; {error.hint}" if error.hint else ""
            self.note(f"searching by words alone: {error.message}{hint}")
            return None


def _remove_oldest(folder: Path) -> None:
    """Keep the indexes of the last materials: the next question about them is answered at once."""
    indexes = sorted(folder.glob("*.sqlite"), key=lambda path: path.stat().st_mtime)
    for path in indexes[:-_KEPT]:
        for one in folder.glob(f"{path.name}*"):
            one.unlink(missing_ok=True)


def _joined(found: Sequence[list[Hit]]) -> list[Hit]:
    """The hits of several indexes by their rank, because scores of two searches do not compare."""
    ranked = [
        (rank, number, hit) for number, hits in enumerate(found) for rank, hit in enumerate(hits)
    ]
    return [hit for _, _, hit in sorted(ranked, key=lambda one: one[:2])]
