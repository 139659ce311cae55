"""What was said: pure values. Identity, time and storage belong to history."""

from collections.abc import Sequence
from typing import Any, Literal

from msgspec import Struct
from msgspec.structs import replace

Role = Literal["system", "user", "assistant", "tool", "summary"]
Mark = Literal["", "pinned", "excluded"]
_BETWEEN = "\n\n"


def material(pieces: Sequence[tuple[str, str]]) -> tuple[str, tuple[tuple[str, int], ...]]:
    """Named texts as the `input` and the `files` of a message."""
    return _BETWEEN.join(text for _, text in pieces), tuple(
        (name, len(text)) for name, text in pieces
    )


class Message(Struct, frozen=True, omit_defaults=True):
    """One message. `input` is the material a user message is about (a file, piped text): formats that were trained with a slot
    for it put it there, all others put it before the text.

    files: the name and the number of characters of each part of `input`, where files were attached; blank lines part them.
    mark: pinned messages are always sent, excluded ones never. covers: a summary stands for so many spoken messages, from the first on.
    calls: the functions that an answer calls, as chat templates know them ({"type", "id", "function": {"name", "arguments"}}).
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

    @property
    def materials(self) -> list[tuple[str, str]]:
        """Each part of `input` with its name; one without a name where nothing is known of parts."""
        pieces, start = [], 0
        for name, length in self.files:
            pieces.append((name, self.input[start : start + length]))
            start += length + len(_BETWEEN)
        whole = _BETWEEN.join(text for _, text in pieces) == self.input
        return pieces if whole else [("", self.input)]


class Conversation(Struct, frozen=True):
    """The messages from first to last. Every change returns a new conversation."""

    messages: tuple[Message, ...] = ()

    def instruct(self, text: str) -> "Conversation":
        """Set the system text from here on; the last one given holds."""
        return self._with(Message("system", text))

    def say(self, text: str, input: str = "") -> "Conversation":
        return self._with(Message("user", text, input))

    def answer(self, text: str) -> "Conversation":
        return self._with(Message("assistant", text))

    def with_hint(self, hint: str) -> "Conversation":
        """With a hint behind the last question, on how to answer it this time."""
        if not hint or self.question < 0:
            return self
        messages = list(self.messages)
        asked = messages[self.question]
        messages[self.question] = replace(asked, text="\n\n".join(filter(None, (asked.text, hint))))
        return replace(self, messages=tuple(messages))

    def undo(self, turns: int = 1) -> "Conversation":
        """Without the last `turns` user messages and all that followed them; without any where there are not so many.

        A summary that was asked for after an answer is a step of its own.
        """
        kept = self
        for _ in range(turns):
            kept = kept._step_back()
        return kept

    def _step_back(self) -> "Conversation":
        length = len(self.messages)
        while length and self.messages[length - 1].role == "summary":
            length -= 1
        made_alone = length < len(self.messages) and self.messages[length - 1].role == "assistant"
        if not made_alone and self.question >= 0:
            length = self.question
        return replace(self, messages=self.messages[:length])

    def turn(self, index: int) -> list[int]:
        """The indexes of what belongs together with a message: its question, and all that was said until the next."""
        users = [i for i, message in enumerate(self.messages) if message.role == "user"]
        start = max((i for i in users if i <= index), default=0)
        end = min((i for i in users if i > index), default=len(self.messages))
        return [i for i in range(start, end) if self.messages[i].role not in ("system", "summary")]

    @property
    def system(self) -> str:
        """The system text that holds now."""
        return next(
            (message.text for message in reversed(self.messages) if message.role == "system"), ""
        )

    def summarise(self, text: str, covers: int) -> "Conversation":
        """Let a summary stand for the first `covers` spoken messages."""
        return self._with(Message("summary", text, covers=covers))

    @property
    def summary(self) -> Message | None:
        """The summary that holds now."""
        return next(
            (message for message in reversed(self.messages) if message.role == "summary"), None
        )

    @property
    def spoken(self) -> tuple[Message, ...]:
        """What people and the model said: all messages but system texts and summaries."""
        return tuple(
            message for message in self.messages if message.role not in ("system", "summary")
        )

    @property
    def question(self) -> int:
        """Index of the last user message; -1 where there is none."""
        return next(
            (
                index
                for index in range(len(self.messages) - 1, -1, -1)
                if self.messages[index].role == "user"
            ),
            -1,
        )

    def _with(self, message: Message) -> "Conversation":
        return replace(self, messages=(*self.messages, message))
