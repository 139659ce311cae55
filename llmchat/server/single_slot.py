"""Engines that make one answer at a time, behind the interface of those that make several."""

from collections.abc import Generator, Sequence
from typing import Any

from llmchat.engines import Adapters, BatchEngine, Chunk, Engine, Finish, Prefill, Sampling
from llmchat.errors import Mismatch
from llmchat.prompt import Prompt


class SingleAnswer:
    """An answer that its engine makes as it is read."""

    def __init__(self, events: Generator[Chunk | Prefill | Finish], prompt_tokens: int):
        self.done = False
        self.prompt_tokens = prompt_tokens
        self.events = events

    def close(self) -> None:
        self.done = True
        self.events.close()


class SingleSlot:
    """`engine` as a BatchEngine of one slot."""

    slots = 1

    def __init__(self, engine: Engine):
        self._engine = engine

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)

    def begin(
        self, prompt: Prompt, sampling: Sampling, adapters: Adapters | None = None
    ) -> SingleAnswer:
        if adapters:
            raise Mismatch(
                "this engine cannot put an adapter on a model that is loaded",
                "name a preset that has it",
            )
        return SingleAnswer(self._engine.stream(prompt, sampling), 0)

    def step(self, answers: Sequence[SingleAnswer]) -> list[list[Chunk | Finish]]:
        """The next event of the one answer there is."""
        answer = answers[0]
        event = next(answer.events)
        if isinstance(event, Finish):
            answer.close()
        return [[] if isinstance(event, Prefill) else [event]]


def as_batch_engine(engine: Engine, slots: int) -> BatchEngine:
    """The engine itself, with so many slots, where it makes several answers at once."""
    if not hasattr(engine, "step"):
        return SingleSlot(engine)  # type: ignore[return-value]
    several: BatchEngine = engine  # type: ignore[assignment]
    several.slots = slots
    return several
