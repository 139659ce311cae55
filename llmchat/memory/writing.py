"""Bring documents into an index: read, cut, embed, and write each in one transaction."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from llmchat.errors import UsageError
from llmchat.memory import stored
from llmchat.memory.chunks import chunks, estimated_tokens
from llmchat.memory.database import Database
from llmchat.memory.readers import Document, read_document
from llmchat.memory.readers.files import file_bytes
from llmchat.memory.searching import with_heading
from llmchat.memory.stored import Stored
from llmchat.memory.types import Embedder, Passage
from llmchat.memory.vectors import adopt_embedder
from llmchat.output.progress import Progress

# Tokens of a passage, and those that it shares with the next one.
LONGEST = 256
OVERLAP = 32
# What a passage's heading may take of an embedder's longest input.
_HEADING = 24
_BATCH = 32


class Skipped(Struct, frozen=True):
    """A source that could not be read, and why."""

    source: str
    reason: str


class Added(Struct):
    """What came of adding or updating: numbers of documents, and passages that are new."""

    read: int = 0
    unchanged: int = 0
    removed: int = 0
    passages: int = 0
    skipped: list[Skipped] = []


class Writer:
    """Adds documents to an index; `added` counts what was done."""

    def __init__(self, database: Database, embedder: Embedder | None, progress: Progress):
        self._database, self._embedder, self._progress = database, embedder, progress
        self.added = Added()

    def add_file(self, path: Path) -> None:
        """Read a file unless it is unchanged; one that cannot be read is skipped and leaves."""
        size = 0
        try:
            size = self._add_file(path)
        except UsageError as error:
            self._skip(str(path), error)
        self._progress.advance(size)

    def add_document(self, document: Document) -> None:
        """Add what was read already, unless it is unchanged."""
        data = document.text.encode("utf-8", "replace")
        facts = Stored(document.source, document.title, len(data), 0, 0, stored.digest(data))
        known = stored.known(self._database, document.source)
        if known and (known.hash, known.title) == (facts.hash, facts.title):
            self.added.unchanged += 1
        else:
            self._write(replace(document, text=data.decode()), facts)

    def remove(self, source: str) -> None:
        with self._database.transaction():
            self.added.removed += stored.delete(self._database, source)

    def fill(self) -> None:
        """Compute the vectors that are missing, document by document."""
        for document in list(self._without_vectors()) if self._embedder else ():
            rows = self._database.rows(
                "SELECT id, '', start, end, text, heading FROM passages WHERE document = ?"
                " AND id NOT IN (SELECT passage FROM vectors)",
                (document,),
            )
            vectors = self._vectors([Passage(*row[1:]) for row in rows], 0)
            with self._database.transaction():
                self._adopt()
                stored.insert_vectors(self._database, [row[0] for row in rows], vectors or [])

    def _without_vectors(self) -> Iterator[int]:
        query = (
            "SELECT DISTINCT document FROM passages"
            " WHERE id NOT IN (SELECT passage FROM vectors) ORDER BY document"
        )
        return (row[0] for row in self._database.rows(query))

    def _add_file(self, path: Path) -> int:
        """Bytes of the file of which the progress does not know yet. Raises UsageError."""
        source = _name(path)
        known, facts = stored.known(self._database, source), _facts(path)
        if known and (known.size, known.modified) == (facts.size, facts.modified):
            self.added.unchanged += 1
            return facts.size
        data = file_bytes(path, source)
        facts = replace(facts, size=len(data), hash=stored.digest(data))
        if known and known.hash == facts.hash:
            self._touch(facts)
            return facts.size
        self._write(read_document(data, source), facts)
        return 0 if self._embedder else facts.size

    def _touch(self, facts: Stored) -> None:
        """Note the new time of a file with the old content."""
        self.added.unchanged += 1
        with self._database.transaction():
            self._database.execute(
                "UPDATE documents SET modified = ? WHERE source = ? AND hash = ?",
                (facts.modified, facts.source, facts.hash),
            )

    def _write(self, document: Document, facts: Stored) -> None:
        found = self._chunks(document)
        vectors = self._vectors(found, facts.size if facts.modified else 0)
        with self._database.transaction():
            self._adopt()
            facts = replace(facts, title=document.title)
            stored.insert(self._database, facts, found, vectors)
        self.added.read += 1
        self.added.passages += len(found)

    def _chunks(self, document: Document) -> list[Passage]:
        if self._embedder is None:
            return chunks(document, estimated_tokens, LONGEST, OVERLAP)
        longest = max(16, min(LONGEST, self._embedder.longest - _HEADING))
        return chunks(document, self._embedder.count, longest, min(OVERLAP, longest // 4))

    def _vectors(self, passages: Sequence[Passage], size: int) -> list[Any] | None:
        """A vector for each passage; `size` bytes of progress are counted along the way."""
        if self._embedder is None:
            return None
        found: list[Any] = []
        counted = 0
        for start in range(0, len(passages), _BATCH):
            batch = passages[start : start + _BATCH]
            found += list(self._embedder.embed_passages(list(map(with_heading, batch))))
            done = size * len(found) // len(passages)
            self._progress.advance(done - counted)
            counted = done
        return found

    def _adopt(self) -> None:
        """Within each transaction: another process may have changed the embedder meanwhile."""
        if self._embedder is not None:
            adopt_embedder(self._database, self._embedder)

    def _skip(self, source: str, error: UsageError) -> None:
        shown = source.encode("utf-8", "replace").decode()
        self.added.skipped.append(Skipped(shown, error.message))
        if stored.known(self._database, shown):
            self.remove(shown)


def _facts(path: Path) -> Stored:
    """The facts of a file, with an empty hash. Raises UsageError."""
    try:
        facts = path.stat()
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}") from error
    return Stored(str(path), "", facts.st_size, facts.st_mtime_ns, 0, "")


def _name(path: Path) -> str:
    """The source of a file. Raises UsageError for a name that is not UTF-8."""
    try:
        str(path).encode()
    except UnicodeEncodeError as error:
        shown = os.fsencode(path).decode("utf-8", "replace")
        raise UsageError(f"the name of {shown} is not UTF-8") from error
    return str(path)
