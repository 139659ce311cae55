"""Models in memory: loaded by name on first use, several within a budget, the least recently used unloaded first, each after its time.

Lives in one event loop. What a name means is told by `recipe`; nothing here knows of files.
"""

import asyncio
import gc
import logging
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

from msgspec import Struct

from llmchat.engines import Adapters, BatchEngine, Engine
from llmchat.errors import OutOfResources
from llmchat.presets import Preset
from llmchat.server.errors import Unavailable
from llmchat.server.metrics import Metrics, ModelMeter
from llmchat.server.onebyone import batching
from llmchat.server.scheduler import Scheduler
from llmchat.templates import memory_grows

log = logging.getLogger("llmchat.server")
FOREVER = -1.0


class Recipe(Struct, frozen=True):
    """How to get a model. Recipes with the same `key` share one engine; adapters are put on it live, from their folders.

    size: bytes it will take, as far as can be known before. made_by: see models.provenance.
    """

    key: str
    preset: Preset
    load: Callable[[], Engine]
    size: int
    adapters: Adapters | None = None
    folders: dict[str, Path] = {}
    made_by: dict[str, Any] = {}


class Resident:
    """A model in memory. leases: requests that use it now."""

    def __init__(self, key: str, engine: BatchEngine, scheduler: Scheduler, size: int, now: float):
        self.key = key
        self.engine = engine
        self.scheduler = scheduler
        self.size = size
        self.leases = 0
        self.used = now
        self.keep_s = FOREVER
        self.adapters: set[str] = set()

    def expires(self) -> float:
        """When it may go, on the pool's clock; infinity for never, and while it is used."""
        return float("inf") if self.leases or self.keep_s == FOREVER else self.used + self.keep_s


class Served(Struct, frozen=True):
    """What a request works with: the preset of the name it gave, the engine, and the scheduler in front of that."""

    preset: Preset
    engine: BatchEngine
    scheduler: Scheduler
    adapters: Adapters | None
    made_by: dict[str, Any]


class Pool:
    """At most `budget` bytes of models, by the estimates of their recipes. keep_s: how long an idle one stays, FOREVER or seconds."""

    def __init__(
        self,
        recipe: Callable[[str], Recipe],
        metrics: Metrics,
        *,
        budget: int,
        keep_s: float,
        slots: int = 16,
        queue: int = 64,
        timeout_s: float = 600.0,
        clock: Callable[[], float] = time.monotonic,
    ):
        self._recipe = recipe
        self._metrics = metrics
        self._budget = budget
        self._keep_s = keep_s
        self._limits: dict[str, Any] = {"slots": slots, "queue": queue, "timeout_s": timeout_s}
        self._clock = clock
        self._residents: dict[str, Resident] = {}
        self._loading = asyncio.Lock()
        self._loads: set[asyncio.Task[Resident]] = set()

    @asynccontextmanager
    async def lease(self, model: str | Recipe, keep_s: float | None = None) -> AsyncIterator[Served]:
        """A model for one request; it stays in memory as long as that lasts, and keep_s longer. Raises what loading raises."""
        recipe = await asyncio.to_thread(self._recipe, model) if isinstance(model, str) else model
        while (resident := await self._get(recipe)).key not in self._residents:
            # It was unloaded again before this request came to its turn.
            pass
        resident.leases += 1
        try:
            await self._put_on(resident, recipe)
            yield Served(recipe.preset, resident.engine, resident.scheduler, recipe.adapters, recipe.made_by)
        finally:
            resident.leases -= 1
            resident.used = self._clock()
            resident.keep_s = self._keep_s if keep_s is None else keep_s

    def residents(self) -> list[Resident]:
        return list(self._residents.values())

    @property
    def busy(self) -> bool:
        return bool(self._loads) or any(resident.leases for resident in self._residents.values())

    async def stop(self, key: str | None = None) -> list[str]:
        """Unload the models that are not in use, or the one with this key; returns the keys of those that went."""
        idle = [resident for resident in self.residents() if not resident.leases and key in (None, resident.key)]
        for resident in idle:
            await self._unload(resident)
        return [resident.key for resident in idle]

    async def sweep(self) -> None:
        """Unload those whose time is over."""
        now = self._clock()
        for resident in self.residents():
            if resident.expires() <= now:
                await self._unload(resident)

    def drain(self) -> None:
        """Take nothing new; what runs is finished."""
        for resident in self.residents():
            resident.scheduler.drain()

    def now(self) -> float:
        """The pool's clock, in seconds."""
        return self._clock()

    async def close(self, grace_s: float) -> None:
        for task in self._loads:
            with suppress(Exception):
                await task
        await asyncio.gather(*(asyncio.to_thread(resident.scheduler.close, grace_s) for resident in self.residents()))
        self._residents.clear()

    async def _get(self, recipe: Recipe) -> Resident:
        resident = self._residents.get(recipe.key)
        if resident is None:
            # A client that goes away does not stop a load that others may wait for.
            task = asyncio.ensure_future(self._load(recipe))
            self._loads.add(task)
            task.add_done_callback(self._loads.discard)
            resident = await asyncio.shield(task)
        return resident

    async def _load(self, recipe: Recipe) -> Resident:
        async with self._loading:
            if there := self._residents.get(recipe.key):
                return there
            await self._make_room(recipe)
            log.info("loading %s", recipe.key)
            with memory_grows():
                engine = batching(await asyncio.to_thread(recipe.load), self._limits["slots"])
            self._metrics.loads.labels(recipe.key).inc()
            scheduler = Scheduler(engine, ModelMeter(self._metrics, recipe.key), name=recipe.key, **self._limits)
            resident = Resident(recipe.key, engine, scheduler, recipe.size, self._clock())
            resident.keep_s = self._keep_s
            self._residents[recipe.key] = resident
            self._metrics.models.set(len(self._residents))
            return resident

    async def _make_room(self, recipe: Recipe) -> None:
        """Unload idle models, the longest unused first, until there is room."""
        if recipe.size > self._budget:
            raise OutOfResources(
                f"{recipe.preset.name} needs {recipe.size / 1e9:.1f} GB; models may take {self._budget / 1e9:.1f} GB",
                "--memory allows more, --weights int4 needs less",
            )
        while sum(resident.size for resident in self.residents()) + recipe.size > self._budget:
            idle = [resident for resident in self.residents() if not resident.leases]
            if not idle:
                raise Unavailable("the models in memory are all in use, and there is no room for another", headers={"Retry-After": "5"})
            await self._unload(min(idle, key=lambda resident: resident.used))

    async def _unload(self, resident: Resident) -> None:
        self._residents.pop(resident.key, None)
        self._metrics.models.set(len(self._residents))
        log.info("unloading %s", resident.key)
        await asyncio.to_thread(resident.scheduler.close)
        resident.engine.close()
        # Cycles keep tensors alive until the collector comes, which may be long.
        await asyncio.to_thread(gc.collect)

    async def _put_on(self, resident: Resident, recipe: Recipe) -> None:
        """Load the adapters that the recipe names and the engine has not seen."""
        for name, folder in recipe.folders.items():
            if name not in resident.adapters:
                async with self._loading:
                    if name not in resident.adapters:
                        await asyncio.to_thread(resident.engine.load_adapter, name, folder)  # type: ignore[attr-defined]
                        resident.adapters.add(name)
