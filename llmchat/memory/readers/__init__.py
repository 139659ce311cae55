"""Read a file as text with its structure: sections under headings, functions, or pages.

Readers of formats with large parsers (PDF, docx, HTML) run in a process of their own.
"""

from pathlib import Path

from llmchat.memory.readers.types import Document, Section

__all__ = ["Document", "Section", "read_document"]


def read_document(content: Path | bytes, name: str) -> Document:
    """The text and the sections of a file; its name tells the format.

    Raises UsageError for a file that is too large, binary, damaged, encrypted or not UTF-8.
    """
    from llmchat.memory.readers.files import file_bytes
    from llmchat.memory.readers.formats import read

    return read(file_bytes(content, name) if isinstance(content, Path) else content, name)
