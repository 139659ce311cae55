"""Models in memory: loaded by name on first use, several within a budget, the least recently used unloaded first, each after its time.

Requests for models that do not fit together take turns: a model that is waited for takes no new requests away from the one in memory, which
finishes what it has; then they change places. A model that has pushed another one out stays at least as long as that took.
Lives in one event loop. What a name means is told by `spec`; nothing here knows of files.
"""

import asyncio
import gc
import logging
import math
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

from msgspec import Struct

from llmchat.engines import Adapters, Engine
from llmchat.engines.capabilities import BatchEngine, TakesAdapters, unwrap
from llmchat.errors import OutOfResources
from llmchat.presets import Preset
from llmchat.server.errors import DeadlineExceeded, Stopping
from llmchat.server.load_queue import LoadQueue, Waiter
from llmchat.server.metrics import Metrics, ModelMetrics
from llmchat.server.scheduler import Scheduler
from llmchat.server.single_slot import as_batch_engine, no_live_adapters

log = logging.getLogger("llmchat.server")
FOREVER = -1.0
# However long a swap takes, the model that came by it is not kept against the next one for longer.
_LONGEST_TURN_S = 60.0
# Clients whose wishes for a model are told apart.
_WISHES = 256


class ModelSpec(Struct, frozen=True):
    """How to get a model. Recipes with the same `key` share one engine; adapters are put on it live, from their folders.

    size: bytes it will take, as far as can be known before; context: tokens of its window, 0 where only the loaded model tells. made_by: see models.provenance.
    """

    key: str
    preset: Preset
    load: Callable[[], Engine]
    size: int
    adapters: Adapters | None = None
    folders: dict[str, Path] = {}
    made_by: dict[str, Any] = {}
    context: int = 0


class LoadedModel:
    """A model in memory. leases: requests that use it now; wishes: until when each client wants it to stay, on the pool's clock; turn_ends: until then no other model takes its place, on the pool's clock;
    yielding: it takes no more requests, since another model waits for its memory."""

    def __init__(self, key: str, engine: BatchEngine, scheduler: Scheduler, size: int, now: float):
        self.key = key
        self.engine = engine
        self.scheduler = scheduler
        self.size = size
        self.leases = 0
        self.used = now
        self.turn_ends = now
        self.yielding = False
        self.wishes: dict[str, float] = {}
        self.adapters: set[str] = set()
        self.putting_on = asyncio.Lock()

    def expires_at(self) -> float:
        """When it may go, on the pool's clock; infinity for never, and while it is used."""
        return math.inf if self.leases else max(self.wishes.values(), default=self.used)

    def keep(self, client: str, until: float) -> None:
        """What this client wants now takes the place of what it wanted before; nobody shortens the time of another."""
        if len(self.wishes) >= _WISHES and client not in self.wishes:
            self.wishes = {"": max(self.wishes.values())}
        self.wishes[client] = until


class Lease(Struct, frozen=True):
    """What a request works with: the preset of the name it gave, the engine, and the scheduler in front of that.

    deadline: when its answer has to be there, in seconds of time.monotonic
    """

    preset: Preset
    engine: BatchEngine
    scheduler: Scheduler
    adapters: Adapters | None
    made_by: dict[str, Any]
    deadline: float


class Pool:
    """At most `budget` bytes of models, by the estimates of their specs. keep_s: how long an idle one stays, FOREVER or seconds."""

    def __init__(
        self,
        spec: Callable[[str], ModelSpec],
        metrics: Metrics,
        *,
        budget: int,
        keep_s: float,
        slots: int = 16,
        queue: int = 64,
        timeout_s: float = 600.0,
        clock: Callable[[], float] = time.monotonic,
    ):
        self._spec = spec
        self._metrics = metrics
        self._budget = budget
        self._keep_s = keep_s
        self._timeout_s = timeout_s
        self._limits: dict[str, Any] = {"slots": slots, "queue": queue, "timeout_s": timeout_s}
        self._clock = clock
        self._models: dict[str, LoadedModel] = {}
        self._waiting: LoadQueue[LoadedModel] = LoadQueue(slots + queue)
        self._wanted: dict[str, ModelSpec] = {}
        self._changed = asyncio.Event()
        self._changing: asyncio.Task[None] | None = None
        self._refusing = False
        self._loading: tuple[str, float] | None = None
        self._took: dict[str, float] = {}

    @asynccontextmanager
    async def lease(
        self,
        model: str | ModelSpec,
        keep_s: float | None = None,
        client: str = "",
        timeout_s: float | None = None,
    ) -> AsyncIterator[Lease]:
        """A model for one request; it stays in memory as long as that lasts, and at least keep_s longer. Raises what loading raises, and DeadlineExceeded.

        timeout_s: for waiting, loading and answering together; the pool's own where it is None
        """
        wait_s = self._timeout_s if timeout_s is None else timeout_s
        deadline = time.monotonic() + wait_s
        spec = await asyncio.to_thread(self._spec, model) if isinstance(model, str) else model
        loaded = await self._leased(spec, client, deadline, wait_s)
        try:
            await self._put_on(loaded, spec)
            yield Lease(
                spec.preset,
                loaded.engine,
                loaded.scheduler,
                spec.adapters,
                spec.made_by,
                deadline,
            )
        finally:
            self._give_back(loaded, client, self._keep_s if keep_s is None else keep_s)

    def loaded_models(self) -> list[LoadedModel]:
        return list(self._models.values())

    def window(self, spec: ModelSpec) -> int:
        """Tokens of a model's window; 0 where that is not known before it is loaded."""
        loaded = self._models.get(spec.key)
        limits = (
            spec.preset.context.tokens,
            loaded.engine.context if loaded else spec.context,
        )
        return min(filter(None, limits), default=0)

    def loading(self, key: str) -> tuple[float, float | None] | None:
        """How long this model has been loading, and how long it took the last time, in seconds; None where it is not."""
        if (now := self._loading) is None or now[0] != key:
            return None
        return self._clock() - now[1], self._took.get(key)

    @property
    def busy(self) -> bool:
        return self._changing is not None or any(loaded.leases for loaded in self._models.values())

    @property
    def waiting(self) -> int:
        """Requests that wait for a model to be in memory."""
        return len(self._waiting)

    async def unload_idle(self, key: str | None = None) -> list[str]:
        """Unload the models that are not in use, or the one with this key; returns the keys of those that went."""
        chosen = [loaded for loaded in self.loaded_models() if key in (None, loaded.key)]
        return [loaded.key for loaded in chosen if await self._unload(loaded)]

    async def unload_expired(self) -> None:
        """Unload those whose time is over."""
        now = self._clock()
        for loaded in self.loaded_models():
            if loaded.expires_at() <= now:
                await self._unload(loaded)

    def drain(self) -> None:
        """Take nothing new, refuse those who wait for a model, and finish what runs."""
        self._refusing = True
        self._waiting.fail(Stopping())
        self._changed.set()
        for loaded in self.loaded_models():
            loaded.scheduler.drain()

    def abort(self) -> None:
        """End what still runs; its readers are told that the server stops."""
        for loaded in self.loaded_models():
            loaded.scheduler.abort()

    def now(self) -> float:
        """The pool's clock, in seconds."""
        return self._clock()

    async def close(self, grace_s: float) -> None:
        self.drain()
        if self._changing is not None:
            with suppress(Exception):
                await self._changing
        await asyncio.gather(
            *(asyncio.to_thread(loaded.scheduler.close, grace_s) for loaded in self.loaded_models())
        )
        self._models.clear()

    async def _leased(
        self, spec: ModelSpec, client: str, deadline: float, wait_s: float
    ) -> LoadedModel:
        """The model, with a lease for this request."""
        if self._refusing:
            raise Stopping()
        loaded = self._models.get(spec.key)
        if loaded is not None and not loaded.yielding:
            loaded.leases += 1
            return loaded
        waiter: Waiter[LoadedModel] = Waiter(spec.key, client)
        self._waiting.put(waiter)
        self._wanted[spec.key] = spec
        self._start_changing()
        try:
            async with asyncio.timeout(
                max(0.0, deadline - time.monotonic()) if wait_s != math.inf else None
            ):
                return await waiter.granted
        except TimeoutError:
            self._abandon(waiter)
            raise DeadlineExceeded(wait_s) from None
        except BaseException:
            self._abandon(waiter)
            raise

    def _abandon(self, waiter: Waiter[LoadedModel]) -> None:
        """Its client is gone, or its time is up; the lease may have been granted in the same moment."""
        self._waiting.remove(waiter)
        if (
            waiter.granted.done()
            and not waiter.granted.cancelled()
            and waiter.granted.exception() is None
        ):
            self._give_back(waiter.granted.result(), waiter.client, self._keep_s)
        self._changed.set()

    def _give_back(self, loaded: LoadedModel, client: str, keep_s: float) -> None:
        loaded.leases -= 1
        loaded.used = self._clock()
        loaded.keep(client, math.inf if keep_s == FOREVER else loaded.used + keep_s)
        self._changed.set()

    def _start_changing(self) -> None:
        self._changed.set()
        if self._changing is None:
            self._changing = asyncio.ensure_future(self._change())

    async def _change(self) -> None:
        """Bring one model after the other into memory, in the order they were asked for, until nobody waits."""
        try:
            while (key := self._waiting.next_key()) is not None:
                try:
                    await self._bring(self._wanted[key])
                except Exception as error:
                    self._waiting.fail(error, key)
        finally:
            self._changing = None
            self._wanted = {}

    async def _bring(self, spec: ModelSpec) -> None:
        """Lease the model to all who wait for it; load it before where that is needed and somebody still waits."""
        if spec.key not in self._models:
            self._check_size(spec)
            swapped = await self._make_room(spec)
            if not self._waiting.has_waiters(spec.key):
                return
            await self._load(spec, swapped)
        loaded = self._models[spec.key]
        for waiter in self._waiting.take_all(spec.key):
            loaded.leases += 1
            waiter.granted.set_result(loaded)

    async def _load(self, spec: ModelSpec, swapped: bool) -> None:
        """swapped: another one had to go for it, so that it keeps its place for a while."""
        started = self._clock()
        log.info("loading %s", spec.key)
        self._loading = (spec.key, started)
        try:
            engine = as_batch_engine(await asyncio.to_thread(spec.load), self._limits["slots"])
        finally:
            self._loading = None
        self._took[spec.key] = self._clock() - started
        self._metrics.loads.labels(spec.key).inc()
        scheduler = Scheduler(
            engine, ModelMetrics(self._metrics, spec.key), name=spec.key, **self._limits
        )
        loaded = LoadedModel(spec.key, engine, scheduler, spec.size, self._clock())
        if swapped:
            loaded.turn_ends += min(_LONGEST_TURN_S, self._clock() - started)
        self._models[spec.key] = loaded
        self._metrics.models.set(len(self._models))

    def _check_size(self, spec: ModelSpec) -> None:
        if spec.size > self._budget:
            raise OutOfResources(
                f"{spec.preset.name} needs {spec.size / 1e9:.1f} GB; models may take {self._budget / 1e9:.1f} GB",
                "--memory allows more, --weights int4 needs less",
            )

    async def _make_room(self, spec: ModelSpec) -> bool:
        """Unload others until there is room, or nobody waits any more; returns whether one had to go.

        The longest unused idle ones go first. Where that is not enough, others take no more requests until they are idle.
        """
        swapped = False
        try:
            while self._waiting.has_waiters(spec.key) and (going := self._in_the_way(spec)):
                now = self._clock()
                for loaded in going:
                    loaded.yielding = loaded.turn_ends <= now
                ready = [loaded for loaded in going if loaded.yielding and not loaded.leases]
                if ready:
                    swapped = await self._unload(ready[0]) or swapped
                else:
                    await self._wait(
                        min(
                            (one.turn_ends - now for one in going if not one.yielding), default=None
                        )
                    )
        finally:
            for loaded in self._models.values():
                loaded.yielding = False
        return swapped

    def _in_the_way(self, spec: ModelSpec) -> list[LoadedModel]:
        """The fewest models that have to go for this one: idle ones first, then the longest unused."""
        over = sum(loaded.size for loaded in self.loaded_models()) + spec.size - self._budget
        going: list[LoadedModel] = []
        for loaded in sorted(
            self.loaded_models(), key=lambda one: (bool(one.leases) and not one.yielding, one.used)
        ):
            if over > 0:
                going.append(loaded)
                over -= loaded.size
        return going

    async def _wait(self, seconds: float | None) -> None:
        """Until a lease, a waiter or the time has changed something."""
        self._changed.clear()
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._changed.wait()

    async def _unload(self, loaded: LoadedModel) -> bool:
        """Take a model out of memory; False where it is used, or gone already."""
        if loaded.leases or self._models.get(loaded.key) is not loaded:
            return False
        del self._models[loaded.key]
        self._metrics.models.set(len(self._models))
        log.info("unloading %s", loaded.key)
        await asyncio.to_thread(loaded.scheduler.close)
        loaded.engine.unload()
        # Cycles keep tensors alive until the collector comes, which may be long.
        await asyncio.to_thread(gc.collect)
        return True

    async def _put_on(self, loaded: LoadedModel, spec: ModelSpec) -> None:
        """Load the adapters that the spec names and the engine has not seen."""
        if not spec.folders:
            return
        engine = unwrap(loaded.engine)
        if not isinstance(engine, TakesAdapters):
            raise no_live_adapters()
        async with loaded.putting_on:
            for name, folder in spec.folders.items():
                if name not in loaded.adapters:
                    await asyncio.to_thread(engine.load_adapter, name, folder)
                    loaded.adapters.add(name)
