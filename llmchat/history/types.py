"""What the history gives."""

from typing import Any, Literal

from msgspec import Struct

from llmchat.conversation import Message


class Session(Struct, frozen=True):
    """A chat as lists show it. turns: questions on its present branch; tokens: of its last answer and all that was sent for it;
    created, updated: seconds since 1970. opens: the options that open its model again, from any folder; empty in sessions from before
    they were kept. settings: what was set by hand in the chat. imported: it
    came from a file, whose model may not be here."""

    id: str
    title: str
    model: str
    turns: int
    tokens: int
    tags: tuple[str, ...]
    created: float
    updated: float
    opens: dict[str, Any] = {}
    settings: dict[str, Any] = {}
    imported: bool = False


class Record(Struct, frozen=True):
    """A stored message. details: how an answer came about (Finish, what made it, its window) as plain values."""

    id: int
    parent: int | None
    message: Message
    state: Literal["complete", "cancelled"]
    created: float
    details: dict[str, Any]


class SessionMessages(Struct, frozen=True):
    """A session with its messages, as `llmchat sessions show --json` prints it."""

    session: Session
    messages: list[Record]


class Hit(Struct, frozen=True):
    """A message that was found; `snippet` has the match between [ and ]."""

    session: str
    title: str
    message: int
    role: str
    created: float
    snippet: str
