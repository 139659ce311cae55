"""The rows of documents and passages. What changes them runs within a transaction."""

import hashlib
from collections.abc import Sequence
from typing import Any

from msgspec import Struct

from llmchat.memory import words
from llmchat.memory.database import Database
from llmchat.memory.types import Passage
from llmchat.memory.vectors import as_blob

_DOCUMENTS = "SELECT source, title, size, modified, passages, hash FROM documents"
_PASSAGES = """
SELECT source, start, end, text, heading, passages.id
FROM passages JOIN documents ON documents.id = document
"""


class Stored(Struct, frozen=True):
    """A document in an index, without its text.

    size: bytes. modified: nanoseconds since the epoch; 0 for what is not a file.
    """

    source: str
    title: str
    size: int
    modified: int
    passages: int
    hash: str


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def documents(database: Database) -> list[Stored]:
    """Every document, in the order of their sources."""
    return [Stored(*row) for row in database.rows(f"{_DOCUMENTS} ORDER BY source")]


def known(database: Database, source: str) -> Stored | None:
    rows = database.rows(f"{_DOCUMENTS} WHERE source = ?", (source,))
    return Stored(*rows[0]) if rows else None


def passages_of(database: Database, source: str) -> list[Passage]:
    """The passages of a document, in order."""
    rows = database.rows(f"{_PASSAGES} WHERE source = ? ORDER BY start, end", (source,))
    return [Passage(*row[:5]) for row in rows]


def sources_at(database: Database, source: str) -> list[str]:
    """The document with this source, and those in a folder with this path."""
    folder = source.rstrip("/") + "/"
    rows = database.rows(
        "SELECT source FROM documents WHERE source = ? OR substr(source, 1, ?) = ?",
        (source, len(folder), folder),
    )
    return [row[0] for row in rows]


def insert(
    database: Database, facts: Stored, passages: Sequence[Passage], vectors: Sequence[Any] | None
) -> None:
    """Write a document in the place of the one with the same source."""
    delete(database, facts.source)
    document = database.execute(
        "INSERT INTO documents (source, title, size, modified, passages, hash)"
        " VALUES (?, ?, ?, ?, ?, ?)",
        (facts.source, facts.title, facts.size, facts.modified, len(passages), facts.hash),
    ).lastrowid
    numbers = [_insert_passage(database, document, passage) for passage in passages]
    if vectors is not None:
        insert_vectors(database, numbers, vectors)


def _insert_passage(database: Database, document: int | None, passage: Passage) -> int:
    number = database.execute(
        "INSERT INTO passages (document, start, end, heading, text) VALUES (?, ?, ?, ?, ?)",
        (document, passage.start, passage.end, passage.heading, passage.text),
    ).lastrowid
    database.execute(
        "INSERT INTO words (rowid, heading, text) VALUES (?, ?, ?)",
        (number, words.indexed(passage.heading), words.indexed(passage.text)),
    )
    return number or 0


def insert_vectors(database: Database, numbers: Sequence[int], vectors: Sequence[Any]) -> None:
    rows = zip(numbers, map(as_blob, vectors), strict=True)
    # A passage may have been removed while its vector was computed.
    database.connection.executemany(
        "INSERT OR REPLACE INTO vectors SELECT id, ?2 FROM passages WHERE id = ?1", rows
    )


def delete(database: Database, source: str) -> bool:
    """Remove a document; whether there was one."""
    rows = database.execute(f"{_PASSAGES} WHERE source = ?", (source,)).fetchall()
    for *_, text, heading, number in rows:
        # FTS5 keeps no texts here: it is given the old text to remove its words.
        database.execute(
            "INSERT INTO words (words, rowid, heading, text) VALUES ('delete', ?, ?, ?)",
            (number, words.indexed(heading), words.indexed(text)),
        )
        database.execute("DELETE FROM vectors WHERE passage = ?", (number,))
    inner = "DELETE FROM passages WHERE document IN (SELECT id FROM documents WHERE source = ?)"
    database.execute(inner, (source,))
    return bool(database.execute("DELETE FROM documents WHERE source = ?", (source,)).rowcount)
