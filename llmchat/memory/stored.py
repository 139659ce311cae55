"""What an index knows of a document without its text."""

import hashlib
from pathlib import Path

from msgspec import Struct

from llmchat.errors import UsageError
from llmchat.memory.readers.types import Document


class Stored(Struct, frozen=True):
    """A document in an index. size: bytes; modified: nanoseconds since the epoch, 0 if unknown."""

    source: str
    title: str
    size: int
    modified: int
    passages: int
    hash: str


def unread_file(path: Path) -> Stored:
    """The facts of a file, with an empty hash. Raises UsageError."""
    try:
        facts = path.stat()
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}") from error
    return Stored(str(path), "", facts.st_size, facts.st_mtime_ns, 0, "")


def stored_document(document: Document) -> Stored:
    """The facts of a document that comes from no file."""
    data = document.text.encode("utf-8", "replace")
    return Stored(document.source, document.title, len(data), 0, 0, digest(data))


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
