"""What was said: pure values. Identity, time and storage belong to history."""

from typing import Any, Literal

from msgspec import Struct
from msgspec.structs import replace

Role = Literal["system", "user", "assistant", "tool", "summary"]
Mark = Literal["", "pinned", "excluded"]


class Message(Struct, frozen=True, omit_defaults=True):
    """One message. `input` is the material a user message is about (a file, piped text): formats that were trained with a slot
    for it put it there, all others put it before the text.

    mark: pinned messages are always sent, excluded ones never. covers: a summary stands for so many spoken messages, from the first on.
    calls: the functions that an answer calls, as chat templates know them ({"type", "id", "function": {"name", "arguments"}}).
    """

    role: Role
    text: str
    input: str = ""
    mark: Mark = ""
    covers: int = 0
    calls: tuple[dict[str, Any], ...] = ()


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

    def undo(self, turns: int = 1) -> "Conversation":
        """Without the last `turns` user messages and all that followed them; without any where there are not so many."""
        starts = [index for index, message in enumerate(self.messages) if message.role == "user"]
        return replace(self, messages=self.messages[: starts[-min(turns, len(starts))]]) if starts else self

    @property
    def system(self) -> str:
        """The system text that holds now."""
        return next((message.text for message in reversed(self.messages) if message.role == "system"), "")

    def summarise(self, text: str, covers: int) -> "Conversation":
        """Let a summary stand for the first `covers` spoken messages."""
        return self._with(Message("summary", text, covers=covers))

    @property
    def summary(self) -> Message | None:
        """The summary that holds now."""
        return next((message for message in reversed(self.messages) if message.role == "summary"), None)

    @property
    def spoken(self) -> tuple[Message, ...]:
        """What people and the model said: all messages but system texts and summaries."""
        return tuple(message for message in self.messages if message.role not in ("system", "summary"))

    @property
    def question(self) -> int:
        """Index of the last user message; -1 where there is none."""
        return next((index for index in range(len(self.messages) - 1, -1, -1) if self.messages[index].role == "user"), -1)

    def _with(self, message: Message) -> "Conversation":
        return replace(self, messages=(*self.messages, message))
