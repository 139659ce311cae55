"""Read a file as text with its structure: sections under headings, functions, or paragraphs.

Readers of formats with large parsers (PDF, docx, HTML) run in a process of their own.
"""

from pathlib import Path

from llmchat.errors import UsageError
from llmchat.memory.readers.types import Document, Section

__all__ = ["MOST_BYTES", "Document", "Section", "read_document"]

# Most bytes of one file; a book has about one million.
MOST_BYTES = 64_000_000
_SAMPLE = 8192


def read_document(content: Path | bytes, name: str) -> Document:
    """The text and the sections of a file; its name tells the format.

    Raises UsageError for a file that is too large, binary, damaged, encrypted or not UTF-8.
    """
    data = _bytes(content, name) if isinstance(content, Path) else content
    from llmchat.memory.readers.formats import read

    return read(data, name)


def _bytes(path: Path, name: str) -> bytes:
    try:
        if not path.is_file():
            raise UsageError(f"{name} is not a plain file")
        size = path.stat().st_size
        if size > MOST_BYTES:
            raise UsageError(
                f"{name} is too large ({size / 1e6:,.0f} MB); the limit is 64 MB",
                "split it into parts, for example with `split -C 50M`",
            )
        return path.read_bytes()
    except OSError as error:
        raise UsageError(f"{name} cannot be read: {error.strerror}") from error
