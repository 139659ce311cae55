"""Documents that come from no file: a page of the web, and the chats on this machine."""

from collections.abc import Iterator, Sequence
from threading import Event
from typing import TYPE_CHECKING

from llmchat.errors import UsageError
from llmchat.memory.readers import Document, Section
from llmchat.settings import Options, World

if TYPE_CHECKING:
    from llmchat.history import Record, Session

CHATS = "session:"


def is_address(source: str) -> bool:
    """Whether a source is an address of the web, not a path."""
    return source.startswith(("http://", "https://"))


def web_document(url: str, world: World, options: Options) -> Document:
    """One page as Markdown, over the guarded connection of the web tools.

    Raises UsageError, or NetworkError in offline mode.
    """
    from llmchat.memory.readers.headings import markdown_sections
    from llmchat.tools import ToolError
    from llmchat.tools.web.fetch import fetch
    from llmchat.tools.web.settings import WebSettings

    try:
        page = fetch(url, WebSettings.of(world, options), Event())
    except ToolError as error:
        raise UsageError(error.message, error.hint) from error
    return Document(url, page.text, markdown_sections(page.text), page.title)


def chat_documents(world: World) -> Iterator[Document]:
    """Every saved chat, a section for each question with its answer."""
    from llmchat.models.sessions import saved_history

    with saved_history(world) as history:
        for session in history.sessions():
            document = chat_document(session, history.messages(session.id))
            if document.text:
                yield document


def chat_document(session: "Session", records: "Sequence[Record]") -> Document:
    """A chat as text: `user: …`, `assistant: …`."""
    text, starts = "", list[int]()
    for record in records:
        message = record.message
        if message.role not in ("user", "assistant") or not message.text.strip():
            continue
        if message.role == "user" or not starts:
            starts.append(len(text))
        text += f"{message.role}: {message.text.strip()}\n\n"
    ends = [*starts[1:], len(text)]
    sections = (Section(start, end, session.title) for start, end in zip(starts, ends, strict=True))
    return Document(f"{CHATS}{session.id}", text, tuple(sections), session.title)
