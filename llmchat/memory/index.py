"""An index: documents, their passages, and the search in them, in one SQLite file.

Each document is written in one transaction. So the death of the process loses at most the document
that was being read, and several processes may write at once.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal

from msgspec import Struct

from llmchat.errors import LlmchatError, UsageError
from llmchat.memory import words
from llmchat.memory.chunks import chunks, estimated_tokens
from llmchat.memory.database import Database
from llmchat.memory.readers import Document, read_document
from llmchat.memory.stored import Stored, stored_document, unread_file
from llmchat.memory.types import Embedder, Hit, Passage, Reranker
from llmchat.memory.walk import files_below
from llmchat.output.progress import NoProgress, Progress

Mode = Literal["hybrid", "words", "meaning"]
# Tokens of a passage, and those that it shares with the next one.
LONGEST = 256
OVERLAP = 32
_PASSAGES = """
SELECT source, start, end, text, heading, passages.id
FROM passages JOIN documents ON documents.id = document
"""


class Skipped(Struct, frozen=True):
    """A source that could not be read, and why."""

    source: str
    reason: str


class Added(Struct):
    """What came of adding or updating."""

    read: int = 0
    unchanged: int = 0
    removed: int = 0
    passages: int = 0
    skipped: list[Skipped] = []


class Index:
    """The documents in an index file."""

    def __init__(self, database: Database):
        self._database = database

    @classmethod
    def open(cls, path: Path, create: bool = False) -> "Index":
        """The index in a file. Raises UsageError if there is none, unless `create` makes it."""
        return cls(Database(path, create))

    def close(self) -> None:
        self._database.close()

    def __enter__(self) -> "Index":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def add(
        self,
        sources: Iterable[Path | Document],
        embedder: Embedder | None = None,
        progress: Progress | None = None,
    ) -> Added:
        """Read files, the files below folders, and documents that were read already.

        A file that has not changed is left alone. One that cannot be read is skipped.
        """
        added, progress = Added(), progress or NoProgress()
        given = list(sources)
        roots = [one.resolve() for one in given if isinstance(one, Path)]
        files = {path: None for root in roots for path in files_below(root)}
        self._remember(roots)
        progress.expect("reading", sum(map(_size, files)))
        for path in files:
            self._add_file(path, added, progress)
        for one in given:
            if isinstance(one, Document):
                self._add_document(one, added)
        progress.close()
        return added

    def search(
        self,
        question: str,
        limit: int = 10,
        embedder: Embedder | None = None,
        reranker: Reranker | None = None,
        mode: Mode = "hybrid",
    ) -> list[Hit]:
        """The passages that fit a question best, the best first."""
        query = words.query(question)
        if not query:
            return []
        rows = self._database.rows(
            "SELECT rowid, -bm25(words) FROM words WHERE words MATCH ? ORDER BY rank LIMIT ?",
            (query, limit),
        )
        return [Hit(self._passage(number), score) for number, score in rows]

    def documents(self) -> list[Stored]:
        """Every document, in the order of their sources."""
        rows = self._database.rows(
            "SELECT source, title, size, modified, passages, hash FROM documents ORDER BY source"
        )
        return [Stored(*row) for row in rows]

    def passages_of(self, source: str) -> list[Passage]:
        """The passages of a document, in order."""
        rows = self._database.rows(f"{_PASSAGES} WHERE source = ? ORDER BY start", (source,))
        return [Passage(*row[:5]) for row in rows]

    def remove(self, source: str) -> None:
        """Remove a document. Raises UsageError if it is not in the index."""
        with self._database.transaction():
            if not self._delete(source):
                raise UsageError(f"{source} is not in the index")

    def _passage(self, number: int) -> Passage:
        (row,) = self._database.rows(f"{_PASSAGES} WHERE passages.id = ?", (number,))
        return Passage(*row[:5])

    def _remember(self, roots: Sequence[Path]) -> None:
        with self._database.transaction():
            for root in roots:
                self._database.execute("INSERT OR IGNORE INTO roots VALUES (?)", (str(root),))

    def _add_file(self, path: Path, added: Added, progress: Progress) -> None:
        try:
            known = self._known(str(path))
            facts = unread_file(path)
            if known and (known.size, known.modified) == (facts.size, facts.modified):
                added.unchanged += 1
            else:
                self._write(read_document(path, str(path)), facts, added)
        except LlmchatError as error:
            if not isinstance(error, UsageError):
                raise
            added.skipped.append(Skipped(str(path), error.message))
            progress.note(f"skipped: {error.message}")
        progress.advance(_size(path))

    def _add_document(self, document: Document, added: Added) -> None:
        facts, known = stored_document(document), self._known(document.source)
        if known and known.hash == facts.hash:
            added.unchanged += 1
        else:
            self._write(document, facts, added)

    def _known(self, source: str) -> Stored | None:
        rows = self._database.rows(
            "SELECT source, title, size, modified, passages, hash FROM documents WHERE source = ?",
            (source,),
        )
        return Stored(*rows[0]) if rows else None

    def _write(self, document: Document, facts: Stored, added: Added) -> None:
        found = chunks(document, estimated_tokens, LONGEST, OVERLAP)
        with self._database.transaction():
            self._delete(document.source)
            number = self._database.execute(
                "INSERT INTO documents (source, hash, modified, size, title, passages)"
                " VALUES (?, ?, ?, ?, ?, ?)",
                (facts.source, facts.hash, facts.modified, facts.size, facts.title, len(found)),
            ).lastrowid
            for passage in found:
                self._insert(number, passage)
        added.read += 1
        added.passages += len(found)

    def _insert(self, document: int | None, passage: Passage) -> None:
        number = self._database.execute(
            "INSERT INTO passages (document, start, end, heading, text) VALUES (?, ?, ?, ?, ?)",
            (document, passage.start, passage.end, passage.heading, passage.text),
        ).lastrowid
        self._database.execute(
            "INSERT INTO words (rowid, heading, text) VALUES (?, ?, ?)",
            (number, words.indexed(passage.heading), words.indexed(passage.text)),
        )

    def _delete(self, source: str) -> bool:
        """Remove a document within a transaction; whether there was one."""
        rows = self._database.execute(f"{_PASSAGES} WHERE source = ?", (source,)).fetchall()
        for *_, text, heading, number in rows:
            # An index without texts of its own is given the old text to remove it.
            self._database.execute(
                "INSERT INTO words (words, rowid, heading, text) VALUES ('delete', ?, ?, ?)",
                (number, words.indexed(heading), words.indexed(text)),
            )
            self._database.execute("DELETE FROM vectors WHERE passage = ?", (number,))
        self._database.execute(
            "DELETE FROM passages WHERE document IN (SELECT id FROM documents WHERE source = ?)",
            (source,),
        )
        return bool(
            self._database.execute("DELETE FROM documents WHERE source = ?", (source,)).rowcount
        )


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0
