"""The text of a Word document as Markdown. Runs in the process of `worker`."""

import io
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

from llmchat.errors import UsageError
from llmchat.memory.readers.headings import markdown_sections
from llmchat.memory.readers.types import Document

if TYPE_CHECKING:
    from docx.document import Document as WordDocument
    from docx.table import Table

_HEADING = re.compile(r"Heading ([1-6])$")


def read_docx(data: bytes, name: str) -> Document:
    """Paragraphs, headings, lists and tables. Raises UsageError for a document without text."""
    import docx

    if data.startswith(b"\xd0\xcf\x11\xe0"):
        # Word encrypts into the container of its old binary format.
        raise UsageError(f"{name} is encrypted, or in the old .doc format", "save it as .docx")
    document = docx.Document(io.BytesIO(data))
    text = "\n\n".join(filter(None, _blocks(document)))
    if not text.strip():
        raise UsageError(f"{name} has no text")
    title = document.core_properties.title or ""
    return Document(name, text, markdown_sections(text), " ".join(title.split()))


def _blocks(document: "WordDocument") -> Iterator[str]:
    from docx.table import Table

    for block in document.iter_inner_content():
        if isinstance(block, Table):
            yield "\n".join(_rows(block))
        else:
            style = block.style.name if block.style is not None else ""
            yield _paragraph(block.text.strip(), style or "")


def _paragraph(text: str, style: str) -> str:
    if not text:
        return ""
    if style == "Title":
        return f"# {_line(text)}"
    if heading := _HEADING.match(style):
        return f"{'#' * int(heading[1])} {_line(text)}"
    return f"- {text}" if style.startswith("List") else text


def _rows(table: "Table") -> Iterator[str]:
    for row in table.rows:
        # A cell that spans columns is named once for each of them.
        cells = dict.fromkeys(_line(cell.text) for cell in row.cells)
        yield "| " + " | ".join(cells) + " |"


def _line(text: str) -> str:
    return " ".join(text.split())
