"""Capabilities that only some engines have, one protocol each.

Callers ask `isinstance(unwrap(engine), SavesCache)`, since an engine that passes its work on to
another one has no capabilities itself.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeVar, runtime_checkable

from llmchat.conversation import Conversation
from llmchat.engines import Adapters, Chunk, Counter, Engine, Finish, Sampling
from llmchat.prompt import Prompt
from llmchat.structure import Structure

if TYPE_CHECKING:
    from torch import Tensor

Value = TypeVar("Value")
AnyCounter = TypeVar("AnyCounter", bound=Counter)


@runtime_checkable
class Wraps(Protocol):
    """Passes its work on to another engine, `wrapped`; None while that one is still loading."""

    @property
    def wrapped(self) -> Engine | None: ...


def unwrap(engine: AnyCounter) -> AnyCounter | Engine:
    """The engine that does the work, whose capabilities count."""
    worker: AnyCounter | Engine = engine
    while isinstance(worker, Wraps) and worker.wrapped is not None:
        worker = worker.wrapped
    return worker


class Answer(Protocol):
    """An answer in progress. It belongs to the engine that began it."""

    @property
    def done(self) -> bool:
        """Whether its Finish was returned."""
        ...

    @property
    def prompt_tokens(self) -> int: ...

    @property
    def cached_tokens(self) -> int | None:
        """Prompt tokens that were in the KV cache, known after the first step; None if only the
        Finish tells."""
        ...

    def close(self) -> None:
        """Give its cache back, at the end or earlier. A second call does nothing."""
        ...


@runtime_checkable
class Batches(Protocol):
    """Makes several answers at once, at most `slots` of them."""

    slots: int

    def begin(self, prompt: Prompt, sampling: Sampling, adapters: Adapters | None = None) -> Answer:
        """Encode a prompt; nothing is read yet. adapters: None for the engine's own choice.

        Raises ContextOverflow.
        """
        ...

    def step(self, answers: Sequence[Answer]) -> list[list[Chunk | Finish]]:
        """Run the model once for all of these answers and return the events of each, in order.

        Each answer reads a piece of its prompt or makes a token; with prompt-lookup decoding it can
        make several. Exactly one Finish ends each answer.
        """
        ...


class BatchEngine(Engine, Batches, Protocol):
    """An engine that makes several answers at once."""


@runtime_checkable
class SavesCache(Protocol):
    """Writes its KV cache to disk, and continues from it in another process."""

    @property
    def held_tokens(self) -> int:
        """Tokens of the text that was read last."""
        ...

    @property
    def token_bytes(self) -> int:
        """Bytes that a token takes in the cache, without states of a fixed size."""
        ...

    def save_cache(self, path: Path, key: str) -> int:
        """Save the text that was read last; returns its tokens, 0 if this cache cannot be saved."""
        ...

    def load_cache(self, path: Path, key: str) -> int:
        """Load what was saved under the same key; returns its tokens, 0 if nothing fits."""
        ...


@runtime_checkable
class TakesAdapters(Protocol):
    """Applies LoRA adapters to loaded weights, without loading the model again."""

    def load_adapter(self, name: str, folder: Path) -> None:
        """Load an adapter under a name. Raises Mismatch if it does not fit the base."""
        ...

    def adapt(self, wanted: Sequence[tuple[Path, float]], name: str) -> None:
        """Answer as if loaded with these adapters and no others. Raises Mismatch."""
        ...


@runtime_checkable
class Scores(Protocol):
    """Reports how likely a text is."""

    def score(self, ids: list[int]) -> "Tensor":
        """Log-probabilities [T - 1] of each token of `ids` after the ones before it."""
        ...

    def logits(self, ids: list[int]) -> "Tensor":
        """Logits [vocab] of the token after `ids`."""
        ...


class ScoringEngine(Engine, Scores, Protocol):
    """An engine that reports how likely a text is."""


@runtime_checkable
class Embeds(Protocol):
    """Turns texts into vectors of `dimensions` numbers."""

    dimensions: int

    def embed(
        self, texts: Sequence[str], use: str = "", dimensions: int = 0
    ) -> tuple[list[list[float]], int]:
        """A vector for each text, and the number of tokens read.

        use: `query` or `passage` for the prefix of its preset, "" for none. dimensions: 0 for all.
        Raises ContextOverflow, and UsageError for dimensions that the model was not trained for.
        """
        ...


@runtime_checkable
class Reranks(Protocol):
    """Scores passages for a question."""

    def rerank(self, question: str, passages: Sequence[str]) -> tuple[list[float], int]:
        """A score of 0 to 1 for each passage, and the number of tokens read."""
        ...


@runtime_checkable
class TakesTokenIds(Protocol):
    """Answers a prompt that is given as token ids."""

    def prompt_of(self, ids: Sequence[int]) -> Prompt:
        """The prompt of exactly these ids. Raises Mismatch for an id outside the vocabulary."""
        ...


@runtime_checkable
class FollowsGrammars(Protocol):
    """Binds its answers to grammars of llguidance while `follows_grammars` is true."""

    @property
    def follows_grammars(self) -> bool: ...


@runtime_checkable
class SendsMessages(Protocol):
    """Lets a server write the prompt, while `sends_messages` is true: it is told `Sampling.think`
    as well."""

    @property
    def sends_messages(self) -> bool: ...


@runtime_checkable
class SendsTools(Protocol):
    """Passes `Prompt.tools` on to a server that writes, binds and parses calls itself, while
    `sends_tools` is true."""

    @property
    def sends_tools(self) -> bool: ...


@runtime_checkable
class ChecksStructure(Protocol):
    """Depends on its server for the structures that it can enforce."""

    def check_structure(self, structure: Structure) -> None:
        """Raise UsageError for a structure that it cannot enforce."""
        ...


@runtime_checkable
class DraftsTokens(Protocol):
    """Uses prompt-lookup decoding, which changes no token of an answer, while `drafts` is true."""

    drafts: bool


@runtime_checkable
class InBackground(Protocol):
    """Has its model in the background server of this user, which can also build the prompt."""

    def ask(self, conversation: Conversation, sampling: Sampling, kind: type[Value]) -> Value:
        """What `chat.build_request` makes of a conversation, as `kind`, in one request."""
        ...
