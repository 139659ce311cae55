"""The text of a PDF, a section for each page. Runs in the process of `worker`."""

import io
import logging

from llmchat.errors import UsageError
from llmchat.memory.readers.types import Document, Section

_MOST_PAGES = 20_000


def read_pdf(data: bytes, name: str) -> Document:
    """The pages as text. Raises UsageError for a PDF that is encrypted or has no text."""
    from pypdf import PdfReader
    from pypdf.errors import DependencyError, FileNotDecryptedError

    logging.getLogger("pypdf").setLevel(logging.CRITICAL)
    try:
        reader = PdfReader(io.BytesIO(data))
        if reader.is_encrypted and not reader.decrypt(""):
            raise _encrypted(name)
        pages = [page.extract_text() for page in reader.pages[:_MOST_PAGES]]
        title = reader.metadata.get("/Title") if reader.metadata else ""
    except (FileNotDecryptedError, DependencyError) as error:
        raise _encrypted(name) from error
    if not any(page.strip() for page in pages):
        raise UsageError(f"{name} has no text; it may be a scan", "`ocrmypdf` adds text to a scan")
    return _document(name, pages, title if isinstance(title, str) else "")


def _document(name: str, pages: list[str], title: str) -> Document:
    text, sections = "", list[Section]()
    for number, page in enumerate(pages, 1):
        start = len(text)
        text += page.encode("utf-8", "replace").decode().strip() + "\n\n"
        sections.append(Section(start, len(text), f"page {number}"))
    return Document(name, text, tuple(sections), " ".join(title.split()))


def _encrypted(name: str) -> UsageError:
    return UsageError(
        f"{name} is encrypted", "remove the password, for example with `qpdf --decrypt`"
    )
