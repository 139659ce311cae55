"""Training conversations as pure values."""

from collections.abc import Sequence

from msgspec import Struct

from llmchat.conversation import Message
from llmchat.errors import UsageError


class Record(Struct, frozen=True):
    """One training conversation: an optional system message, then alternating user and assistant.

    It ends with an answer. place: FILE:NUMBER for errors, with the line of JSON lines or the
    element of a JSON list. A plain text has no messages and `text` set.
    """

    messages: tuple[Message, ...]
    place: str
    text: str = ""


def trimmed(messages: Sequence[Message]) -> tuple[Message, ...]:
    """The messages from the first question to the last answer; nothing else can be learned."""
    system = tuple(message for message in messages[:1] if message.role == "system")
    turns = list(messages[len(system) :])
    while turns and turns[0].role == "assistant":
        turns.pop(0)
    while turns and turns[-1].role == "user":
        turns.pop()
    return (*system, *turns)


def disorder(messages: Sequence[Message]) -> str:
    """Why these messages cannot be trained on; "" if they can."""
    turns = messages[1:] if messages and messages[0].role == "system" else messages
    for index, message in enumerate(turns):
        expected = "assistant" if index % 2 else "user"
        if message.role != expected:
            return f"turn {index + 1} is from {message.role}, not from {expected}"
    return "no answer" if not turns else "the last question has no answer" if len(turns) % 2 else ""


def checked(record: Record) -> Record:
    """The record as training needs it, see `trimmed`. Raises UsageError if that is impossible."""
    if record.text:
        return record
    messages = trimmed(record.messages)
    reason = disorder(messages)
    if reason:
        raise UsageError(
            f"{record.place}: {reason}", "`llmchat data clean` leaves such records out"
        )
    return record if len(messages) == len(record.messages) else Record(messages, record.place)
