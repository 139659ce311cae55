"""A model in the server's memory: how to load it, who uses it, and when it may be unloaded."""

import asyncio
import math
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Any

from msgspec import Struct

from llmchat.engines import Adapters, Engine, Sampling
from llmchat.engines.capabilities import BatchEngine
from llmchat.presets import Preset
from llmchat.prompt import Prompt
from llmchat.server.jobs import Event, merged_events
from llmchat.server.scheduler import Scheduler

# The number of clients whose keep-alive times are stored separately.
_MAX_CLIENTS = 256


class ModelSpec(Struct, frozen=True):
    """How to load a model. Specs with the same `key` share one engine; adapters are applied live.

    size: estimated bytes in memory; folders: of the adapters, by name; context: tokens of its
    context window, 0 if unknown before it is loaded; made_by: see models.provenance.
    """

    key: str
    preset: Preset
    load: Callable[[], Engine]
    size: int
    adapters: Adapters | None = None
    folders: dict[str, Path] = {}
    made_by: dict[str, Any] = {}
    context: int = 0


class Lease(Struct, frozen=True):
    """What a request works with: the preset of the name it asked for, the engine, its scheduler.

    deadline: for the answer to be complete, on the clock of time.monotonic
    """

    preset: Preset
    engine: BatchEngine
    scheduler: Scheduler
    adapters: Adapters | None
    made_by: dict[str, Any]
    deadline: float

    async def events(
        self, prompts: Sequence[tuple[Prompt, Sampling]], client: str
    ) -> AsyncGenerator[tuple[int, list[Event]]]:
        """The events of answers to all prompts, each with the index of its prompt.

        What is unfinished when it is closed is cancelled. Raises BadRequest, Busy and Stopping.
        """
        jobs = self.scheduler.submit(prompts, self.adapters, client, self.deadline)
        try:
            async with aclosing(merged_events(jobs)) as merged:
                async for index, events in merged:
                    yield index, events
        finally:
            self.scheduler.cancel(jobs)


class LoadedModel:
    """A model in memory. All times are on the pool's clock.

    leases: requests that use it now; last_used: when the last one ended; keep_until: until when
    each client wants it to stay; protected_until: until when no other model may displace it;
    draining: accepts no more requests, because another model waits for its memory.
    """

    def __init__(self, key: str, engine: BatchEngine, scheduler: Scheduler, size: int, now: float):
        self.key = key
        self.engine = engine
        self.scheduler = scheduler
        self.size = size
        self.leases = 0
        self.last_used = now
        self.protected_until = now
        self.draining = False
        self.keep_until: dict[str, float] = {}
        self.adapters: set[str] = set()
        self.adapter_lock = asyncio.Lock()

    def expires_at(self) -> float:
        """When it may be unloaded; infinity for never, and while it is in use."""
        return math.inf if self.leases else max(self.keep_until.values(), default=self.last_used)

    def keep(self, client: str, until: float) -> None:
        """Replace this client's previous time; no client shortens another's."""
        if len(self.keep_until) >= _MAX_CLIENTS and client not in self.keep_until:
            self.keep_until = {"": max(self.keep_until.values())}
        self.keep_until[client] = until


def models_to_unload(loaded: Sequence[LoadedModel], size: int, budget: int) -> list[LoadedModel]:
    """The fewest models to unload so that `size` more bytes fit into the budget: idle ones first,
    then the least recently used."""

    def priority(model: LoadedModel) -> tuple[bool, float]:
        in_use = bool(model.leases) and not model.draining
        return in_use, model.last_used

    excess = sum(model.size for model in loaded) + size - budget
    chosen: list[LoadedModel] = []
    for model in sorted(loaded, key=priority):
        if excess > 0:
            chosen.append(model)
            excess -= model.size
    return chosen
