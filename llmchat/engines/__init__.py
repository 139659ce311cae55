"""The seam between the chat and the engines: the values on both sides of it, and the contract of
an engine, which turns a prompt into chunks of text.

An engine knows nothing of presets, windows or history, and renders no prompt format. What only some
engines can do is declared in `engines.capabilities`. This module imports no engine.
"""

from collections.abc import Generator
from typing import Literal, Protocol

from msgspec import Struct

from llmchat.calls import Call
from llmchat.errors import LlmchatError
from llmchat.prompt import Prompt
from llmchat.settings.sampling import Sampling as Sampling

# Live adapters of an answer: the names they were loaded under, each with its strength
# (1 is as trained).
Adapters = tuple[tuple[str, float], ...]


class Token(Struct, frozen=True):
    """One token of an answer, with its log-probability before temperature is applied.

    spelling: its bytes, which can be a part of a character. rivals: the most likely tokens at its
    position, each with its log-probability.
    """

    id: int
    spelling: bytes
    logprob: float
    rivals: tuple[tuple[bytes, float], ...] = ()


class Chunk(Struct, frozen=True):
    """A piece of the answer that is safe to show: whole characters, and no part of a stop string.

    tokens: the tokens since the last chunk, if `Sampling.logprobs` asks for them; then the last
    chunk of an answer can have tokens and no text. calls: tool calls, from an engine whose server
    parses them itself. cached_tokens: as in Finish, in the first chunk of an answer among several;
    None if it is unknown yet.
    """

    text: str
    tokens: tuple[Token, ...] = ()
    calls: tuple[Call, ...] = ()
    cached_tokens: int | None = None


class Prefill(Struct, frozen=True):
    """Progress of the prefill: `read` of `total` prompt tokens, cached ones included."""

    read: int
    total: int


class Finish(Struct, frozen=True):
    """The end of an answer.

    cached_tokens: prompt tokens that were in the KV cache already. prefill_s: seconds to the first
    token; decode_s: seconds from there to the end. seed: the seed that was used. stop: the stop
    string that ended the answer, if one did and the engine learnt of it.
    """

    reason: Literal["stop", "length", "cancelled"]
    prompt_tokens: int = 0
    cached_tokens: int = 0
    reply_tokens: int = 0
    prefill_s: float = 0.0
    decode_s: float = 0.0
    seed: int = 0
    stop: str = ""

    @property
    def tokens_per_second(self) -> float:
        """Decode speed. The first token belongs to the prefill."""
        if self.decode_s <= 0 or self.reply_tokens <= 1:
            return 0.0
        return (self.reply_tokens - 1) / self.decode_s


class Unloaded(LlmchatError):
    """An engine was used after `Engine.unload`."""

    def __init__(self, name: str):
        super().__init__(f"{name} was unloaded", "`/model` loads a model")


class Counter(Protocol):
    """A tokenizer as the context window needs it."""

    def count(self, text: str) -> int:
        """Tokens of a bare text: without BOS, and with special tokens read as plain text."""
        ...

    def encode(self, prompt: Prompt) -> list[int]:
        """Token ids of a whole prompt, with exactly one BOS if the model uses one."""
        ...


class Engine(Counter, Protocol):
    """A loaded model.

    context: the most tokens it can hold. load_s: seconds it took to load. resumes: whether it can
    continue an answer that a prompt ends with.
    """

    @property
    def context(self) -> int: ...

    @property
    def load_s(self) -> float: ...

    @property
    def resumes(self) -> bool: ...

    def describe(self) -> str:
        """Name, weights and device of the loaded model, for the status line and `--json`."""
        ...

    def stream(self, prompt: Prompt, sampling: Sampling) -> Generator[Chunk | Prefill | Finish]:
        """Yield chunks as they become safe to show, then exactly one Finish.

        Closing the iterator early cancels the answer; the engine stays usable. An engine may yield
        Prefill events before the first chunk of a long prompt.
        """
        ...

    def clear_cache(self) -> None:
        """Forget every text that was read, so that the next prompt is prefilled from its start.

        The model stays loaded, and the call costs no time worth measuring. It has no effect on the
        cache of a server, which other clients use too.
        """
        ...

    def unload(self) -> None:
        """Free the weights, or close the connection to the server that holds them.

        Only while no answer is in progress. Afterwards `describe` still works; `count`, `encode`
        and `stream` raise Unloaded, and nothing loads the model again. A second call does nothing.
        """
        ...
