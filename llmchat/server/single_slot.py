"""Adapts engines that generate one answer at a time to the interface of batching engines."""

from collections.abc import Generator, Sequence

from llmchat.engines import Adapters, Chunk, Engine, Finish, Prefill, Sampling
from llmchat.engines.capabilities import BatchEngine, Batches, unwrap
from llmchat.errors import Mismatch
from llmchat.prompt import Prompt


class SingleAnswer:
    """An answer that its engine generates while its events are read."""

    def __init__(self, events: Generator[Chunk | Prefill | Finish], prompt_tokens: int):
        self.done = False
        self.prompt_tokens = prompt_tokens
        self.cached_tokens: int | None = None
        self.events = events

    def close(self) -> None:
        self.done = True
        self.events.close()


class SingleSlot:
    """`wrapped` as an engine that batches, with one slot. `capabilities.unwrap` finds the rest."""

    def __init__(self, wrapped: Engine):
        self.wrapped = wrapped
        self.slots = 1

    @property
    def context(self) -> int:
        return self.wrapped.context

    @property
    def load_s(self) -> float:
        return self.wrapped.load_s

    @property
    def resumes(self) -> bool:
        return self.wrapped.resumes

    def describe(self) -> str:
        return self.wrapped.describe()

    def count(self, text: str) -> int:
        return self.wrapped.count(text)

    def encode(self, prompt: Prompt) -> list[int]:
        return self.wrapped.encode(prompt)

    def stream(self, prompt: Prompt, sampling: Sampling) -> Generator[Chunk | Prefill | Finish]:
        return self.wrapped.stream(prompt, sampling)

    def clear_cache(self) -> None:
        self.wrapped.clear_cache()

    def unload(self) -> None:
        self.wrapped.unload()

    def begin(
        self, prompt: Prompt, sampling: Sampling, adapters: Adapters | None = None
    ) -> SingleAnswer:
        if adapters:
            raise no_live_adapters()
        return SingleAnswer(self.wrapped.stream(prompt, sampling), 0)

    def step(self, answers: Sequence[SingleAnswer]) -> list[list[Chunk | Finish]]:
        """The next event of the only answer."""
        answer = answers[0]
        event = next(answer.events)
        if isinstance(event, Finish):
            answer.close()
        return [[] if isinstance(event, Prefill) else [event]]


def no_live_adapters() -> Mismatch:
    return Mismatch(
        "this engine cannot apply an adapter to a loaded model", "use a preset with the adapter"
    )


def as_batch_engine(engine: Engine, slots: int) -> BatchEngine:
    """The engine with this number of slots if it batches, otherwise behind a single slot."""
    engine = unwrap(engine)
    if not isinstance(engine, Batches):
        return SingleSlot(engine)  # type: ignore[return-value]
    engine.slots = slots
    return engine
