"""The seam behind which everything heavy hides. An engine turns a prompt into pieces of text; it knows nothing of presets, windows or
history, and it renders no format. This module holds the values on both sides of the seam and imports no engine.
"""

from collections.abc import Generator, Sequence
from typing import Literal, Protocol

from msgspec import Struct

from llmchat.prompt import Prompt
from llmchat.settings.sampling import Sampling as Sampling

# Live adapters of an answer, by the names they were loaded under, each with its strength (1 is as trained).
Adapters = tuple[tuple[str, float], ...]


class Token(Struct, frozen=True):
    """A token of an answer: its bytes (a part of a character, at times), its log-probability before temperature, and its likeliest rivals."""

    id: int
    spelling: bytes
    logprob: float
    rivals: tuple[tuple[bytes, float], ...] = ()


class Chunk(Struct, frozen=True):
    """A piece of the answer that is safe to show: whole characters, and no part of a stop string. tokens: those since the last chunk, where
    Sampling.logprobs asks for them; then the last chunk of an answer may be without text."""

    text: str
    tokens: tuple[Token, ...] = ()


class Prefill(Struct, frozen=True):
    """How far a prompt is read: `read` of `total` tokens, those from the KV cache counted in."""

    read: int
    total: int


class Finish(Struct, frozen=True):
    """The end of an answer. Times in seconds; cached_tokens of the prompt were still in the KV cache; seed is the one that was used."""

    reason: Literal["stop", "length", "cancelled"]
    prompt_tokens: int = 0
    cached_tokens: int = 0
    reply_tokens: int = 0
    prefill_s: float = 0.0
    decode_s: float = 0.0
    seed: int = 0

    @property
    def tokens_per_second(self) -> float:
        """Decode speed. The first token belongs to the prefill."""
        return (
            (self.reply_tokens - 1) / self.decode_s
            if self.decode_s > 0 and self.reply_tokens > 1
            else 0.0
        )


class Counter(Protocol):
    """What the window needs to know of a tokenizer."""

    def count(self, text: str) -> int:
        """Tokens of a bare text: no BOS, and special tokens written out count as text."""
        ...

    def encode(self, prompt: Prompt) -> list[int]:
        """Token ids of a whole prompt, with exactly one BOS where the model wants one."""
        ...


class Engine(Counter, Protocol):
    """A loaded model. `context` is the most tokens it can hold; `describe` names what is loaded, for the status line and `--json`."""

    @property
    def context(self) -> int: ...

    @property
    def load_s(self) -> float: ...

    def describe(self) -> str: ...

    def stream(self, prompt: Prompt, sampling: Sampling) -> Generator[Chunk | Prefill | Finish]:
        """Chunks as they are safe to show, then exactly one Finish. Closing the iterator early cancels; the engine stays usable.

        Before the first chunk of a long prompt an engine may tell with Prefill how far it is.
        """
        ...

    def close(self) -> None: ...


class Answer(Protocol):
    """An answer that is being made. It belongs to the engine that began it."""

    @property
    def done(self) -> bool:
        """Its Finish has been given out."""
        ...

    @property
    def prompt_tokens(self) -> int: ...

    def close(self) -> None:
        """Give its cache back, at the end or in the middle. May be called again."""
        ...


class BatchEngine(Engine, Protocol):
    """An engine that makes several answers at once, at most `slots` of them."""

    slots: int

    def begin(self, prompt: Prompt, sampling: Sampling, adapters: Adapters | None = None) -> Answer:
        """An answer about to be made: its prompt is encoded, nothing is read yet. adapters: None for the engine's own choice.

        Raises ContextOverflow.
        """
        ...

    def step(self, answers: Sequence[Answer]) -> list[list[Chunk | Finish]]:
        """One pass through the model for all of these: each reads a piece of its prompt, or makes a token (several where a draft was right).

        Returns the events of each, in order; exactly one Finish ends each answer.
        """
        ...
