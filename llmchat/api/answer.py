"""The answer that a Python program gets, and how it is built from the events of a chat."""

from dataclasses import dataclass, field
from typing import Any, Generic, Literal, TypeVar, cast

from llmchat import chat as chats
from llmchat.acting import ToolStarted
from llmchat.answer_form import fault_of
from llmchat.answer_report import CitedSource, SentWindow, Timings, ToolUse, Usage
from llmchat.api.forms import Form, read_value
from llmchat.chat import Event
from llmchat.engines import Chunk
from llmchat.errors import LlmchatError
from llmchat.reply_parser import Thinking
from llmchat.tools.toolbox import Result

T = TypeVar("T")
# The event that a tool has run.
ToolResult = Result
_NO_WINDOW = SentWindow(0, 0, 0, 0, ())


class InvalidAnswer(LlmchatError):
    """An answer without a value: it was cut off, or its type rejects it."""


@dataclass(frozen=True, kw_only=True)
class Answer(Generic[T]):
    """An answer and what is known about it. `str(answer)` is its text."""

    text: str
    """The answer."""
    thinking: str
    """The model's reasoning before the answer; empty if there is none."""
    finish_reason: Literal["stop", "length", "cancelled"]
    """`length`: the token limit or the end of the window cut it off."""
    usage: Usage
    """Tokens."""
    window: SentWindow
    """What was sent to the model, and what did not fit."""
    tool_calls: tuple[ToolUse, ...]
    """Calls of tools, in order."""
    sources: tuple[CitedSource, ...]
    """Passages of documents and pages of tools, as numbered in the answer."""
    timings: Timings
    """Seconds."""
    seed: int
    """The seed that reproduces the answer."""
    model: str
    """Name of the model."""
    session: str | None
    """Id of the saved session; None if the chat is not saved."""
    fault: str = ""
    """With a schema: why there is no value; empty if there is one."""
    _value: T = field(default=cast(Any, None), repr=False)

    @property
    def value(self) -> T:
        """The text as an instance of the schema's type; None without a schema.

        Raises InvalidAnswer with `fault` if the answer is incomplete or its type rejects it.
        """
        if self.fault:
            raise InvalidAnswer(self.fault)
        return self._value

    def __str__(self) -> str:
        return self.text

    def _repr_markdown_(self) -> str:
        return self.text


class GrowingAnswer(Generic[T]):
    """An answer while its events arrive."""

    def __init__(self, form: Form[T]):
        self.text = self.thinking = ""
        self._form = form
        self._results: list[Result] = []
        self._is_apart = False

    def feed(self, event: Event) -> str:
        """Add an event; returns the text that it adds to the answer."""
        if isinstance(event, Thinking):
            self.thinking += event.text
        elif isinstance(event, ToolStarted):
            # The result of an action within an answer is a part of its line.
            self._is_apart = event.number > 0
        elif isinstance(event, Result):
            self._results.append(event)
        elif isinstance(event, Chunk):
            return self._add(event.text)
        return ""

    def _add(self, text: str) -> str:
        if text and self._is_apart:
            text, self._is_apart = ("\n\n" if self.text else "") + text, False
        self.text += text
        return text

    def answer(self, talk: chats.Chat) -> Answer[T]:
        """The answer as far as it is known. talk: the chat that gave it."""
        finish = talk.finish
        assert finish is not None
        value, fault = self._value(talk)
        return Answer(
            text=self.text,
            thinking=self.thinking,
            finish_reason=finish.reason,
            usage=Usage.of(finish),
            window=SentWindow.of(talk.window) if talk.window else _NO_WINDOW,
            tool_calls=tuple(map(ToolUse.of, self._results)),
            sources=tuple(map(CitedSource.of, talk.sources.take())),
            timings=Timings.of(finish, talk.engine.load_s),
            seed=finish.seed,
            model=talk.preset.name,
            session=talk.session if talk.history.path else None,
            fault=fault,
            _value=value,
        )

    def _value(self, talk: chats.Chat) -> tuple[T, str]:
        """The value of the text, or why there is none."""
        nothing = cast(T, None)
        if self._form.structure is None:
            return nothing, ""
        last = talk.conversation.messages[-1]
        text = last.text if last.role == "assistant" else self.text
        if fault := fault_of(talk, text, option=str):
            return nothing, fault
        try:
            return read_value(self._form, text), ""
        except LlmchatError as error:
            return nothing, error.message
