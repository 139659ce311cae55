"""What was said: pure values. Identity, time and storage belong to history."""

from typing import Literal

from msgspec import Struct
from msgspec.structs import replace

Role = Literal["system", "user", "assistant", "tool"]


class Message(Struct, frozen=True, omit_defaults=True):
    """One message. `input` is the material a user message is about (a file, piped text): formats that were trained with a slot
    for it put it there, all others put it before the text."""

    role: Role
    text: str
    input: str = ""


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

    @property
    def spoken(self) -> tuple[Message, ...]:
        """All messages but the system's."""
        return tuple(message for message in self.messages if message.role != "system")

    def _with(self, message: Message) -> "Conversation":
        return replace(self, messages=(*self.messages, message))
