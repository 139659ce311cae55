"""What is known of an answer while it arrives, and what of it is stored."""

from collections.abc import Mapping
from typing import Any

import msgspec

from llmchat.calls import Call, ToolRequest
from llmchat.conversation import Message
from llmchat.engines import Chunk, Finish, Sampling
from llmchat.presets import ContextPolicy
from llmchat.reply_parser import Thinking, ToolCalls
from llmchat.tools.toolbox import Result
from llmchat.window import Window

_WINDOW = ("limit", "tokens", "sent", "dropped")


class AnswerRecord:
    """An answer, from the events of its generation. begun: text of an answer to continue."""

    def __init__(self, begun: str = ""):
        self.text = begun
        self.thinking = ""
        self.window: Window | None = None
        self.finish = Finish("cancelled")
        self._has_text = False
        self._calls: list[Call] = []
        self._results: list[Result] = []

    def feed(self, event: object) -> None:
        """Add an event. Events that change nothing are ignored."""
        if isinstance(event, Window):
            self.window = event
        elif isinstance(event, Chunk):
            self.text, self._has_text = self.text + event.text, True
        elif isinstance(event, Thinking):
            self.thinking += event.text
        elif isinstance(event, ToolCalls):
            self._calls += event.calls
        elif isinstance(event, Result):
            self._results.append(event)
        elif isinstance(event, Finish):
            self.finish = event

    @property
    def is_worth_storing(self) -> bool:
        """Whether there is more than a question that was cancelled before its first word."""
        return self._has_text or self.finish.reason != "cancelled"

    def message(self) -> Message:
        """The message. Calls of an answer that was cut off or stopped are not run."""
        complete = self.finish.reason == "stop"
        calls = tuple(call.as_openai() for call in self._calls) if complete else ()
        return Message("assistant", self.text, calls=calls)

    def details(
        self,
        made_by: Mapping[str, Any],
        sampling: Sampling,
        context: ContextPolicy,
        tools: ToolRequest | None,
        **optional: Any,
    ) -> dict[str, Any]:
        """How the answer was made. Optional values are left out where they are empty."""
        window = self.window
        known = {
            "made_by": made_by,
            "sampling": msgspec.to_builtins(sampling),
            "context": msgspec.to_builtins(context),
            "window": {name: getattr(window, name) for name in _WINDOW} if window else {},
        }
        optional |= {"thinking": self.thinking, "tools": msgspec.to_builtins(tools)}
        optional |= {"actions": msgspec.to_builtins(self._results)}
        return known | {name: value for name, value in optional.items() if value}
