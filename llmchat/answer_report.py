"""What is known of an answer, as `--json` and the Python API have it.

The text below a field is its description in docs/json.md.
"""

from typing import Any

from msgspec import UNSET, Struct, UnsetType

from llmchat.engines import Finish
from llmchat.tools.sources import NumberedSource
from llmchat.tools.toolbox import Result
from llmchat.window import LedgerEntry, Window


class Usage(Struct):
    """The tokens of an answer."""

    prompt_tokens: int
    """Tokens of the prompt."""
    cached_tokens: int
    """Those of them that were in the KV cache."""
    completion_tokens: int
    """Tokens of the answer."""

    @classmethod
    def of(cls, finish: Finish) -> "Usage":
        return cls(finish.prompt_tokens, finish.cached_tokens, finish.reply_tokens)


class Timings(Struct):
    """The seconds of an answer."""

    load_s: float
    """Loading the model."""
    prefill_s: float
    """Reading the prompt, up to the first token."""
    decode_s: float
    """The tokens after the first one."""

    @classmethod
    def of(cls, finish: Finish, load_s: float) -> "Timings":
        return cls(round(load_s, 4), round(finish.prefill_s, 4), round(finish.decode_s, 4))


class SentWindow(Struct):
    """What was sent of a conversation, and what was left out."""

    limit: int
    """Tokens of the context window."""
    tokens: int
    """Tokens of the rendered prompt."""
    sent: int
    """Messages that were sent."""
    dropped: int
    """Messages that did not fit."""
    ledger: tuple[LedgerEntry, ...]
    """One entry for each message."""

    @classmethod
    def of(cls, window: Window) -> "SentWindow":
        return cls(window.limit, window.tokens, window.sent, window.dropped, window.ledger)


class ToolUse(Struct):
    """A call of a tool."""

    name: str
    """Name of the tool."""
    arguments: dict[str, Any]
    """Arguments of the call."""
    allowed: bool
    """Whether it was allowed to run."""
    result: str
    """What the model was given, whole."""
    error: str
    """Why it failed; empty if it did not."""
    seconds: float
    """Seconds that it ran."""

    @classmethod
    def of(cls, result: Result) -> "ToolUse":
        return cls(
            name=result.call.name,
            arguments=result.call.arguments,
            allowed=result.allowed,
            result=result.whole or result.text,
            error=result.error,
            seconds=round(result.seconds, 4),
        )


class CitedSource(Struct):
    """A source of the answer."""

    n: int
    """Its number in the answer."""
    source: str
    """Its address."""
    title: str
    """Its title."""
    start: int | UnsetType = UNSET
    """Of a passage from --docs: its first character in the text of the document."""
    end: int | UnsetType = UNSET
    """Of a passage: the character behind its last one."""
    score: float | UnsetType = UNSET
    """Of a passage: how well it fits the question; higher is better."""
    text: str | UnsetType = UNSET
    """Of a passage: its text."""

    @classmethod
    def of(cls, source: NumberedSource) -> "CitedSource":
        cited = cls(source.n, source.url, source.title)
        if place := source.place:
            cited.start, cited.end, cited.text = place.start, place.end, place.text
            cited.score = float(f"{place.score:.4g}")
        return cited
