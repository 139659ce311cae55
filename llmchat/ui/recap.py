"""A saved chat on the screen again: the whole of it, or how it ended."""

from collections.abc import Sequence

from llmchat.conversation import Message
from llmchat.formatting import counted
from llmchat.history import Session
from llmchat.ui import notes, status
from llmchat.ui.state import Talk

_UNITS = (
    (365 * 86400, "year"),
    (30 * 86400, "month"),
    (7 * 86400, "week"),
    (86400, "day"),
    (3600, "hour"),
    (60, "minute"),
)
_QUESTION_LINES = 6


def age(moment: float, now: float) -> str:
    """How long ago a moment was: `3 hours ago`."""
    seconds = now - moment
    for length, unit in _UNITS:
        if seconds >= length:
            return f"{counted(int(seconds // length), unit)} ago"
    return "just now"


def about(session: Session, now: float) -> str:
    """What a session is, in a line: title, age and model."""
    return " · ".join(
        filter(None, (session.title or "(no title)", age(session.updated, now), session.model))
    )


def last_exchange(talk: Talk) -> None:
    """Title, age and model of the chat that goes on, its last question and what was answered."""
    chat = talk.chat
    session = chat.history.find(chat.session or "")
    talk.note(
        status.cut(
            f"continuing {session.id}: {about(session, talk.world.now())}",
            max(talk.width() - 1, 20),
        )
    )
    index = chat.conversation.question
    if index >= 0:
        talk.say("")
        show(talk, chat.conversation.messages[index:], _QUESTION_LINES)


def show(talk: Talk, messages: Sequence[Message], question_lines: int | None = None) -> None:
    """Messages as they looked when they were written; of a question no more than so many lines."""
    for message in messages:
        if message.role == "user":
            _question(talk, message, question_lines)
        elif message.role == "assistant":
            talk.show(message.text)
        else:
            talk.note(f"[{message.role}] {message.text}\n")


def _question(talk: Talk, message: Message, most: int | None) -> None:
    lines = (message.text or message.input).splitlines() or [""]
    for number, line in enumerate(lines[:most]):
        if number:
            talk.say(f"… {line}")
        else:
            notes.question(talk.world, line, talk.width())
    if most and len(lines) > most:
        talk.note(f"… and {counted(len(lines) - most, 'more line')}")
    if message.input and message.text:
        names = ", ".join(name for name, _ in message.files) or "material"
        talk.note(f"[attached: {names}]")
