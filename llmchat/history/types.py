"""The values that the history returns."""

from typing import Any, Literal

from msgspec import UNSET, Struct, UnsetType

from llmchat.conversation import Message


class Session(Struct, frozen=True):
    """A chat as lists show it."""

    id: str
    """Id of the session."""
    title: str
    """Its title."""
    model: str
    """Name of its model."""
    turns: int
    """Questions on its current branch."""
    tokens: int
    """Tokens of its last prompt and answer."""
    tags: tuple[str, ...]
    """Its tags."""
    created: float
    """Seconds since 1970."""
    updated: float
    """Seconds since 1970."""
    opens: dict[str, Any] = {}
    """Options that open its model again; empty in sessions of early versions."""
    settings: dict[str, Any] = {}
    """Settings that were changed in the chat."""
    imported: bool = False
    """Whether it came from a file; its model may not be on this machine."""


class Record(Struct, frozen=True):
    """A stored message."""

    id: int
    """Id of the message."""
    parent: int | None
    """Id of the message before it."""
    message: Message
    """The message."""
    state: Literal["complete", "cancelled"]
    """`cancelled`: the answer was stopped."""
    created: float
    """Seconds since 1970."""
    details: dict[str, Any]
    """How an answer came about: tokens, seconds, sampling, model, window."""


class SessionMessages(Struct, frozen=True):
    """A session with its messages, as `llmchat sessions show --json` prints it."""

    session: Session
    """The session."""
    messages: list[Record]
    """Its current branch; with --tree every branch."""


class Turn(Struct, frozen=True):
    """A question and one of its answers; either may be empty. message: the last one's id."""

    message: int
    session: str
    title: str
    question: str
    answer: str
    created: float


class Hit(Struct, frozen=True):
    """A message that was found."""

    session: str
    """Id of the session."""
    title: str
    """Its title."""
    message: int
    """Id of the message."""
    role: str
    """Role of the message."""
    created: float
    """Seconds since 1970."""
    snippet: str
    """The text around the match, which is between [ and ]; with --meaning the passage."""
    score: float | UnsetType = UNSET
    """With --meaning: how well it fits; higher is better."""
