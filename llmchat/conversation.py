"""Messages and conversations as pure values. Identity, time and storage belong to `history`."""

from collections.abc import Sequence
from typing import Any, Literal

from msgspec import Struct
from msgspec.structs import replace

Role = Literal["system", "user", "assistant", "tool", "summary", "memory"]
Mark = Literal["", "pinned", "excluded"]
# Roles that set the context instead of taking part in the conversation.
UNSPOKEN = ("system", "summary", "memory")
_SEPARATOR = "\n\n"


def material(pieces: Sequence[tuple[str, str]]) -> tuple[str, tuple[tuple[str, int], ...]]:
    """Named texts as the `input` and the `files` of a message."""
    text = _SEPARATOR.join(text for _, text in pieces)
    return text, tuple((name, len(text)) for name, text in pieces)


class FoundPassage(Struct, frozen=True, omit_defaults=True):
    """A passage that a search put beside a question. Its text is a part of the message's input."""

    n: int
    """Number that answers cite."""
    source: str
    """Path or address of its document."""
    start: int
    """First character in the text of the document."""
    end: int
    """Character behind the last one."""
    score: float = 0.0
    """How well it fits; higher is better, comparable within one search."""
    heading: str = ""
    """Heading of its section."""
    mark: Mark = ""
    """`pinned`: sent with every question; `excluded`: never sent."""


class Message(Struct, frozen=True, omit_defaults=True):
    """One message of a conversation.

    Formats that were trained with a slot for `input` put it there, all others before the text. The
    parts of `input` are separated by blank lines. calls: as chat templates expect them,
    {"type", "id", "function": {"name", "arguments"}}.
    """

    role: Role
    """Who wrote it."""
    text: str
    """The text."""
    input: str = ""
    """Material that came with it, such as a file."""
    mark: Mark = ""
    """`pinned`: always sent; `excluded`: never sent."""
    covers: int = 0
    """Messages that a summary replaces, from the first on."""
    calls: tuple[dict[str, Any], ...] = ()
    """Tool calls of an answer."""
    files: tuple[tuple[str, int], ...] = ()
    """Name and length in characters of each part of `input`."""
    call_id: str = ""
    """Id of the call whose result this is."""
    passages: tuple[FoundPassage, ...] = ()
    """What a search found: the first parts of `input`, in order."""

    @property
    def materials(self) -> list[tuple[str, str]]:
        """Name and text of each part of `input`; one nameless part if the parts are unknown."""
        pieces, start = [], 0
        for name, length in self.files:
            pieces.append((name, self.input[start : start + length]))
            start += length + len(_SEPARATOR)
        complete = _SEPARATOR.join(text for _, text in pieces) == self.input
        return pieces if complete else [("", self.input)]


class Conversation(Struct, frozen=True):
    """The messages from first to last. Every change returns a new conversation."""

    messages: tuple[Message, ...] = ()

    @property
    def system(self) -> str:
        """The current system text: the last one that was set."""
        message = self._last("system")
        return message.text if message else ""

    @property
    def memory(self) -> str:
        """The block of remembered facts that the conversation is sent with."""
        message = self._last("memory")
        return message.text if message else ""

    @property
    def summary(self) -> Message | None:
        """The current summary: the last one that was made."""
        return self._last("summary")

    @property
    def spoken(self) -> tuple[Message, ...]:
        """All messages except system texts and summaries."""
        return tuple(message for message in self.messages if message.role not in UNSPOKEN)

    @property
    def question(self) -> int:
        """Index of the last user message; -1 if there is none."""
        users = (i for i in range(len(self.messages) - 1, -1, -1) if self._is_user(i))
        return next(users, -1)

    def instruct(self, text: str) -> "Conversation":
        """Set the system text for the following answers."""
        return self._with(Message("system", text))

    def say(self, text: str, input: str = "") -> "Conversation":
        """Add a user message."""
        return self._with(Message("user", text, input))

    def answer(self, text: str) -> "Conversation":
        """Add an answer."""
        return self._with(Message("assistant", text))

    def summarise(self, text: str, covers: int) -> "Conversation":
        """Add a summary that replaces the first `covers` spoken messages."""
        return self._with(Message("summary", text, covers=covers))

    def with_hint(self, hint: str) -> "Conversation":
        """Add a hint to the last question, on how to answer it this time."""
        if not hint or self.question < 0:
            return self
        messages = list(self.messages)
        question = messages[self.question]
        text = _SEPARATOR.join(filter(None, (question.text, hint)))
        messages[self.question] = replace(question, text=text)
        return replace(self, messages=tuple(messages))

    def undo(self, turns: int = 1) -> "Conversation":
        """Remove the last `turns` user messages, or all, and everything that followed them.

        A summary that was requested after an answer counts as a step of its own.
        """
        kept = self
        for _ in range(turns):
            kept = kept._step_back()
        return kept

    def turn(self, index: int) -> list[int]:
        """The indexes of a message's turn: its question and everything up to the next question."""
        users = [i for i in range(len(self.messages)) if self._is_user(i)]
        start = max((i for i in users if i <= index), default=0)
        end = min((i for i in users if i > index), default=len(self.messages))
        return [i for i in range(start, end) if self.messages[i].role not in UNSPOKEN]

    def _step_back(self) -> "Conversation":
        length = len(self.messages)
        while length and self.messages[length - 1].role == "summary":
            length -= 1
        requested = length < len(self.messages) and self.messages[length - 1].role == "assistant"
        if not requested and self.question >= 0:
            length = self.question
        return replace(self, messages=self.messages[:length])

    def _last(self, role: Role) -> Message | None:
        found = (message for message in reversed(self.messages) if message.role == role)
        return next(found, None)

    def _is_user(self, index: int) -> bool:
        return self.messages[index].role == "user"

    def _with(self, message: Message) -> "Conversation":
        return replace(self, messages=(*self.messages, message))
