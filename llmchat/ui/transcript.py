"""Print a saved chat as it looked when it was written: all of it, or its last exchange."""

from collections.abc import Sequence

from llmchat.conversation import Message
from llmchat.history import Session
from llmchat.output.formatting import counted
from llmchat.ui import printing, status
from llmchat.ui.state import ReplState

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


def describe(session: Session, now: float) -> str:
    """A session in one line: title, age and model."""
    parts = (session.title or "(no title)", age(session.updated, now), session.model)
    return " · ".join(filter(None, parts))


def print_last_exchange(state: ReplState) -> None:
    """Print what chat continues, its last question and the answer to it."""
    chat = state.chat
    session = chat.history.find(chat.session or "")
    heading = f"continuing {session.id}: {describe(session, state.world.now())}"
    state.print_note(status.cut(heading, max(state.width() - 1, 20)))
    index = chat.conversation.question
    if index >= 0:
        state.print("")
        print_messages(state, chat.conversation.messages[index:], _QUESTION_LINES)


def print_messages(
    state: ReplState, messages: Sequence[Message], question_lines: int | None = None
) -> None:
    """Print messages; of a question at most `question_lines` lines."""
    for message in messages:
        if message.role == "user":
            _print_question(state, message, question_lines)
        elif message.role == "assistant":
            state.print_answer(message.text)
        else:
            state.print_note(f"[{message.role}] {message.text}\n")


def _print_question(state: ReplState, message: Message, limit: int | None) -> None:
    lines = (message.text or message.input).splitlines() or [""]
    printing.print_question(state.world, lines[0], state.width())
    for line in lines[1:limit]:
        state.print(f"… {line}")
    if limit and len(lines) > limit:
        state.print_note(f"… and {counted(len(lines) - limit, 'more line')}")
    if message.input and message.text:
        names = ", ".join(name for name, _ in message.files) or "material"
        state.print_note(f"[attached: {names}]")
