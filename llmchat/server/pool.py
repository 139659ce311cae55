"""Models in memory: loaded by name on first use, several within a budget, the least recently used unloaded first, each after its time.

Requests for models that do not fit together take turns: a model that is waited for takes no new requests away from the one in memory, which
finishes what it has; then they change places. A model that has pushed another one out stays at least as long as that took.
Lives in one event loop. What a name means is told by `recipe`; nothing here knows of files.
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

from llmchat.engines import Adapters, BatchEngine, Engine
from llmchat.errors import OutOfResources
from llmchat.presets import Preset
from llmchat.server.errors import Stopping, TooLate
from llmchat.server.load_queue import Waiter, WaitingRoom
from llmchat.server.metrics import Metrics, ModelMeter
from llmchat.server.scheduler import Scheduler
from llmchat.server.single_slot import batching

log = logging.getLogger("llmchat.server")
FOREVER = -1.0
# However long a swap takes, the model that came by it is not kept against the next one for longer.
_LONGEST_TURN_S = 60.0
# Clients whose wishes for a model are told apart.
_WISHES = 256


class Recipe(Struct, frozen=True):
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


class Resident:
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

    def expires(self) -> float:
        """When it may go, on the pool's clock; infinity for never, and while it is used."""
        return math.inf if self.leases else max(self.wishes.values(), default=self.used)

    def keep(self, client: str, until: float) -> None:
        """What this client wants now takes the place of what it wanted before; nobody shortens the time of another."""
        if len(self.wishes) >= _WISHES and client not in self.wishes:
            self.wishes = {"": max(self.wishes.values())}
        self.wishes[client] = until


class Served(Struct, frozen=True):
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
        self._timeout_s = timeout_s
        self._limits: dict[str, Any] = {"slots": slots, "queue": queue, "timeout_s": timeout_s}
        self._clock = clock
        self._residents: dict[str, Resident] = {}
        self._waiting: WaitingRoom[Resident] = WaitingRoom(slots + queue)
        self._wanted: dict[str, Recipe] = {}
        self._changed = asyncio.Event()
        self._changing: asyncio.Task[None] | None = None
        self._refusing = False
        self._loading: tuple[str, float] | None = None
        self._took: dict[str, float] = {}

    @asynccontextmanager
    async def lease(
        self,
        model: str | Recipe,
        keep_s: float | None = None,
        client: str = "",
        timeout_s: float | None = None,
    ) -> AsyncIterator[Served]:
        """A model for one request; it stays in memory as long as that lasts, and at least keep_s longer. Raises what loading raises, and TooLate.

        timeout_s: for waiting, loading and answering together; the pool's own where it is None
        """
        wait_s = self._timeout_s if timeout_s is None else timeout_s
        deadline = time.monotonic() + wait_s
        recipe = await asyncio.to_thread(self._recipe, model) if isinstance(model, str) else model
        resident = await self._leased(recipe, client, deadline, wait_s)
        try:
            await self._put_on(resident, recipe)
            yield Served(
                recipe.preset,
                resident.engine,
                resident.scheduler,
                recipe.adapters,
                recipe.made_by,
                deadline,
            )
        finally:
            self._give_back(resident, client, self._keep_s if keep_s is None else keep_s)

    def residents(self) -> list[Resident]:
        return list(self._residents.values())

    def window(self, recipe: Recipe) -> int:
        """Tokens of a model's window; 0 where that is not known before it is loaded."""
        resident = self._residents.get(recipe.key)
        limits = (
            recipe.preset.context.tokens,
            resident.engine.context if resident else recipe.context,
        )
        return min(filter(None, limits), default=0)

    def loading(self, key: str) -> tuple[float, float | None] | None:
        """How long this model has been loading, and how long it took the last time, in seconds; None where it is not."""
        if (now := self._loading) is None or now[0] != key:
            return None
        return self._clock() - now[1], self._took.get(key)

    @property
    def busy(self) -> bool:
        return self._changing is not None or any(
            resident.leases for resident in self._residents.values()
        )

    @property
    def waiting(self) -> int:
        """Requests that wait for a model to be in memory."""
        return len(self._waiting)

    async def stop(self, key: str | None = None) -> list[str]:
        """Unload the models that are not in use, or the one with this key; returns the keys of those that went."""
        chosen = [resident for resident in self.residents() if key in (None, resident.key)]
        return [resident.key for resident in chosen if await self._unload(resident)]

    async def sweep(self) -> None:
        """Unload those whose time is over."""
        now = self._clock()
        for resident in self.residents():
            if resident.expires() <= now:
                await self._unload(resident)

    def drain(self) -> None:
        """Take nothing new, refuse those who wait for a model, and finish what runs."""
        self._refusing = True
        self._waiting.fail(Stopping())
        self._changed.set()
        for resident in self.residents():
            resident.scheduler.drain()

    def cut(self) -> None:
        """End what still runs; its readers are told that the server stops."""
        for resident in self.residents():
            resident.scheduler.cut()

    def now(self) -> float:
        """The pool's clock, in seconds."""
        return self._clock()

    async def close(self, grace_s: float) -> None:
        self.drain()
        if self._changing is not None:
            with suppress(Exception):
                await self._changing
        await asyncio.gather(
            *(asyncio.to_thread(resident.scheduler.close, grace_s) for resident in self.residents())
        )
        self._residents.clear()

    async def _leased(
        self, recipe: Recipe, client: str, deadline: float, wait_s: float
    ) -> Resident:
        """The model, with a lease for this request."""
        if self._refusing:
            raise Stopping()
        resident = self._residents.get(recipe.key)
        if resident is not None and not resident.yielding:
            resident.leases += 1
            return resident
        waiter: Waiter[Resident] = Waiter(recipe.key, client)
        self._waiting.join(waiter)
        self._wanted[recipe.key] = recipe
        self._start_changing()
        try:
            async with asyncio.timeout(
                max(0.0, deadline - time.monotonic()) if wait_s != math.inf else None
            ):
                return await waiter.granted
        except TimeoutError:
            self._abandon(waiter)
            raise TooLate(wait_s) from None
        except BaseException:
            self._abandon(waiter)
            raise

    def _abandon(self, waiter: Waiter[Resident]) -> None:
        """Its client is gone, or its time is up; the lease may have been granted in the same moment."""
        self._waiting.leave(waiter)
        if (
            waiter.granted.done()
            and not waiter.granted.cancelled()
            and waiter.granted.exception() is None
        ):
            self._give_back(waiter.granted.result(), waiter.client, self._keep_s)
        self._changed.set()

    def _give_back(self, resident: Resident, client: str, keep_s: float) -> None:
        resident.leases -= 1
        resident.used = self._clock()
        resident.keep(client, math.inf if keep_s == FOREVER else resident.used + keep_s)
        self._changed.set()

    def _start_changing(self) -> None:
        self._changed.set()
        if self._changing is None:
            self._changing = asyncio.ensure_future(self._change())

    async def _change(self) -> None:
        """Bring one model after the other into memory, in the order they were asked for, until nobody waits."""
        try:
            while (key := self._waiting.first()) is not None:
                try:
                    await self._bring(self._wanted[key])
                except Exception as error:
                    self._waiting.fail(error, key)
        finally:
            self._changing = None
            self._wanted = {}

    async def _bring(self, recipe: Recipe) -> None:
        """Lease the model to all who wait for it; load it before where that is needed and somebody still waits."""
        if recipe.key not in self._residents:
            self._check_size(recipe)
            swapped = await self._make_room(recipe)
            if not self._waiting.wants(recipe.key):
                return
            await self._load(recipe, swapped)
        resident = self._residents[recipe.key]
        for waiter in self._waiting.call(recipe.key):
            resident.leases += 1
            waiter.granted.set_result(resident)

    async def _load(self, recipe: Recipe, swapped: bool) -> None:
        """swapped: another one had to go for it, so that it keeps its place for a while."""
        started = self._clock()
        log.info("loading %s", recipe.key)
        self._loading = (recipe.key, started)
        try:
            engine = batching(await asyncio.to_thread(recipe.load), self._limits["slots"])
        finally:
            self._loading = None
        self._took[recipe.key] = self._clock() - started
        self._metrics.loads.labels(recipe.key).inc()
        scheduler = Scheduler(
            engine, ModelMeter(self._metrics, recipe.key), name=recipe.key, **self._limits
        )
        resident = Resident(recipe.key, engine, scheduler, recipe.size, self._clock())
        if swapped:
            resident.turn_ends += min(_LONGEST_TURN_S, self._clock() - started)
        self._residents[recipe.key] = resident
        self._metrics.models.set(len(self._residents))

    def _check_size(self, recipe: Recipe) -> None:
        if recipe.size > self._budget:
            raise OutOfResources(
                f"{recipe.preset.name} needs {recipe.size / 1e9:.1f} GB; models may take {self._budget / 1e9:.1f} GB",
                "--memory allows more, --weights int4 needs less",
            )

    async def _make_room(self, recipe: Recipe) -> bool:
        """Unload others until there is room, or nobody waits any more; returns whether one had to go.

        The longest unused idle ones go first. Where that is not enough, others take no more requests until they are idle.
        """
        swapped = False
        try:
            while self._waiting.wants(recipe.key) and (going := self._in_the_way(recipe)):
                now = self._clock()
                for resident in going:
                    resident.yielding = resident.turn_ends <= now
                ready = [
                    resident for resident in going if resident.yielding and not resident.leases
                ]
                if ready:
                    swapped = await self._unload(ready[0]) or swapped
                else:
                    await self._wait(
                        min(
                            (one.turn_ends - now for one in going if not one.yielding), default=None
                        )
                    )
        finally:
            for resident in self._residents.values():
                resident.yielding = False
        return swapped

    def _in_the_way(self, recipe: Recipe) -> list[Resident]:
        """The fewest models that have to go for this one: idle ones first, then the longest unused."""
        over = sum(resident.size for resident in self.residents()) + recipe.size - self._budget
        going: list[Resident] = []
        for resident in sorted(
            self.residents(), key=lambda one: (bool(one.leases) and not one.yielding, one.used)
        ):
            if over > 0:
                going.append(resident)
                over -= resident.size
        return going

    async def _wait(self, seconds: float | None) -> None:
        """Until a lease, a waiter or the time has changed something."""
        self._changed.clear()
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._changed.wait()

    async def _unload(self, resident: Resident) -> bool:
        """Take a model out of memory; False where it is used, or gone already."""
        if resident.leases or self._residents.get(resident.key) is not resident:
            return False
        del self._residents[resident.key]
        self._metrics.models.set(len(self._residents))
        log.info("unloading %s", resident.key)
        await asyncio.to_thread(resident.scheduler.close)
        resident.engine.close()
        # Cycles keep tensors alive until the collector comes, which may be long.
        await asyncio.to_thread(gc.collect)
        return True

    async def _put_on(self, resident: Resident, recipe: Recipe) -> None:
        """Load the adapters that the recipe names and the engine has not seen."""
        async with resident.putting_on:
            for name, folder in recipe.folders.items():
                if name not in resident.adapters:
                    await asyncio.to_thread(resident.engine.load_adapter, name, folder)  # type: ignore[attr-defined]
                    resident.adapters.add(name)
