"""An index: documents, their passages, and the search in them, in one SQLite file.

Each document is written in one transaction. So the death of the process loses at most the document
that was being read, and several processes may write at once. Without an embedder, an index is
searched by words alone.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path

from llmchat.errors import UsageError
from llmchat.memory import stored
from llmchat.memory.database import Database
from llmchat.memory.readers import Document
from llmchat.memory.roots import (
    exclude,
    excluded,
    is_below,
    is_whole,
    read_whole,
    remember,
    roots,
)
from llmchat.memory.searching import Mode, Search
from llmchat.memory.stored import Stored
from llmchat.memory.types import Embedder, Hit, Passage, Reranker
from llmchat.memory.vectors import check_embedder, embedder_of, forget_embedder
from llmchat.memory.walk import files_below, is_gone
from llmchat.memory.writing import Added, Skipped, Writer
from llmchat.output.progress import NoProgress, Progress

__all__ = ["Added", "Index", "Mode", "Skipped", "Stored"]


class Index:
    """The documents in an index file. embedder: the name of the one that made its vectors."""

    def __init__(self, database: Database):
        self._database = database
        self._search = Search(database)

    @classmethod
    def open(cls, path: Path, create: bool = False, *, any_thread: bool = False) -> "Index":
        """The index in a file. Raises UsageError if there is none, unless `create` makes it.

        any_thread: the caller sees to it that one thread at a time uses it.
        """
        return cls(Database(path, create, any_thread=any_thread))

    def close(self) -> None:
        self._database.close()

    def __enter__(self) -> "Index":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def embedder(self) -> str:
        """The name of the embedder; empty for an index that is searched by words alone."""
        return embedder_of(self._database)[0]

    @property
    def width(self) -> int:
        """Numbers of a vector; 0 without vectors."""
        return embedder_of(self._database)[1]

    @property
    def words_only(self) -> bool:
        """Whether the user wants no vectors."""
        return bool(self._database.rows("SELECT 1 FROM facts WHERE name = 'words_only'"))

    @words_only.setter
    def words_only(self, wanted: bool) -> None:
        with self._database.transaction():
            self._database.execute("DELETE FROM facts WHERE name = 'words_only'")
            if wanted:
                self._database.execute("INSERT INTO facts VALUES ('words_only', '1')")

    def add(
        self,
        sources: Iterable[Path | Document],
        embedder: Embedder | None = None,
        progress: Progress | None = None,
        *,
        gitignore: bool = True,
    ) -> Added:
        """Read files, the files below folders, and documents that were read already.

        What has not changed is left alone; what cannot be read is skipped. Passages that have no
        vectors yet get them. gitignore: leave out what `.gitignore` files name, now and in updates.
        Raises UsageError for a path that does not exist, and Mismatch for an embedder whose vectors
        are not those of the index.
        """
        given = list(sources)
        paths = [one.resolve() for one in given if isinstance(one, Path)]
        found = {path: None for root in paths for path in files_below(root, gitignore=gitignore)}
        writer = self._writer(embedder, progress)
        with self._database.transaction():
            remember(self._database, map(str, paths))
            read_whole(self._database, map(str, paths), whole=not gitignore)
        self._read(writer, list(found), [one for one in given if isinstance(one, Document)])
        return writer.added

    def update(
        self,
        documents: Iterable[Document] = (),
        embedder: Embedder | None = None,
        progress: Progress | None = None,
    ) -> Added:
        """Read again what has changed below the paths that were added, and drop deleted files.

        documents: new versions of what came from no file. The documents of a folder that is not
        there, such as one on another disk, stay.
        """
        writer = self._writer(embedder, progress)
        found, missing = self._files()
        for one in stored.documents(self._database):
            if one.modified and is_gone(Path(one.source)) and not is_below(one.source, missing):
                writer.remove(one.source)
        writer.added.skipped += [Skipped(root, f"{root} is not there") for root in missing]
        self._read(writer, found, list(documents))
        return writer.added

    def search(
        self,
        question: str,
        limit: int = 10,
        embedder: Embedder | None = None,
        reranker: Reranker | None = None,
        mode: Mode = "hybrid",
    ) -> list[Hit]:
        """The passages that fit a question best, best first.

        mode: `words` scores by BM25, `meaning` by cosine, `hybrid` by the ranks in both; without an
        embedder, or without vectors, hybrid is by words. A reranker's scores replace them.
        """
        return self._search.find(question, limit, embedder, reranker, mode)

    def documents(self) -> list[Stored]:
        """Every document, in the order of their sources."""
        return stored.documents(self._database)

    def passages_of(self, source: str) -> list[Passage]:
        """The passages of a document, in order."""
        return stored.passages_of(self._database, source)

    def count(self) -> int:
        """The number of passages."""
        return int(self._database.rows("SELECT count(*) FROM passages")[0][0])

    def roots(self) -> list[str]:
        """The paths and addresses that were added, which `update` looks at again."""
        return roots(self._database)

    def remember(self, source: str) -> None:
        """Note an address or a kind of source for the next update."""
        with self._database.transaction():
            remember(self._database, [source])

    def remove(self, source: str) -> int:
        """Remove a document, or all documents of a folder, for later updates too.

        Returns how many. Raises UsageError if there is none.
        """
        with self._database.transaction():
            known = source in roots(self._database)
            found = stored.sources_at(self._database, source)
            if not found and not known:
                raise UsageError(f"{source} is not in the index")
            for one in found:
                stored.delete(self._database, one)
            exclude(self._database, source)
        return len(found)

    def forget_vectors(self) -> None:
        """Delete all vectors; the next `add` or `update` computes them, with any embedder."""
        with self._database.transaction():
            forget_embedder(self._database)

    def _writer(self, embedder: Embedder | None, progress: Progress | None) -> Writer:
        if embedder is not None:
            check_embedder(self._database, embedder)
        self._progress = progress or NoProgress()
        return Writer(self._database, embedder, self._progress)

    def _read(self, writer: Writer, files: Sequence[Path], documents: Sequence[Document]) -> None:
        self._progress.expect("indexing", sum(map(_size, files)))
        try:
            for path in files:
                writer.add_file(path)
            for document in documents:
                writer.add_document(document)
            writer.fill()
        finally:
            self._progress.close()

    def _files(self) -> tuple[list[Path], list[str]]:
        """The files below the paths that were added, and the folders that are not there."""
        found: dict[Path, None] = {}
        missing = []
        for root in roots(self._database):
            path = Path(root)
            if not path.is_absolute():
                continue
            if not is_gone(path):
                gitignore = not is_whole(self._database, root)
                found |= dict.fromkeys(files_below(path, gitignore=gitignore))
            elif stored.known(self._database, root) is None:
                missing.append(root)
        left_out = excluded(self._database)
        return [path for path in found if not is_below(str(path), left_out)], missing


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0
