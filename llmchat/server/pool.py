"""The models in memory: loaded on first use, several within a budget, unloaded when idle.

Models that do not fit together take turns: while one waits, the loaded one finishes its requests
and accepts no more; then they are swapped. After a swap a model is protected for as long as the
swap took. The pool lives in one event loop. `spec` resolves names; the pool knows no files.
"""

import asyncio
import gc
import logging
import math
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

from llmchat.engines.capabilities import TakesAdapters, unwrap
from llmchat.errors import OutOfResources
from llmchat.server.errors import DeadlineExceeded, Stopping
from llmchat.server.load_queue import LoadQueue, Waiter
from llmchat.server.loaded_model import Lease, LoadedModel, ModelSpec, models_to_unload
from llmchat.server.metrics import Metrics, ModelMetrics
from llmchat.server.scheduler import Scheduler
from llmchat.server.single_slot import as_batch_engine, no_live_adapters

log = logging.getLogger("llmchat.server")
FOREVER = -1.0
# The longest time that a model is protected after a swap.
_MAX_PROTECTION_S = 60.0


class Pool:
    """budget: bytes, compared with the sizes in the specs; keep_s: how long an idle model stays
    loaded, FOREVER or seconds."""

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
        self._loader: asyncio.Task[None] | None = None
        self._refusing = False
        self._loading: tuple[str, float] | None = None
        self._load_times: dict[str, float] = {}

    @asynccontextmanager
    async def lease(
        self,
        model: str | ModelSpec,
        keep_s: float | None = None,
        client: str = "",
        timeout_s: float | None = None,
    ) -> AsyncIterator[Lease]:
        """A model for one request. It stays loaded meanwhile, and for at least keep_s afterwards.

        timeout_s: for waiting, loading and answering together; None for the pool's own.
        Raises DeadlineExceeded, and what loading raises.
        """
        wait_s = self._timeout_s if timeout_s is None else timeout_s
        deadline = time.monotonic() + wait_s
        spec = await asyncio.to_thread(self._spec, model) if isinstance(model, str) else model
        loaded = await self._acquire(spec, client, deadline, wait_s)
        try:
            await self._load_adapters(loaded, spec)
            engine, scheduler = loaded.engine, loaded.scheduler
            yield Lease(spec.preset, engine, scheduler, spec.adapters, spec.made_by, deadline)
        finally:
            self._release(loaded, client, self._keep_s if keep_s is None else keep_s)

    def loaded_models(self) -> list[LoadedModel]:
        return list(self._models.values())

    def window(self, spec: ModelSpec) -> int:
        """The tokens of a model's context window; 0 if unknown before it is loaded."""
        loaded = self._models.get(spec.key)
        limits = spec.preset.context.tokens, loaded.engine.context if loaded else spec.context
        return min(filter(None, limits), default=0)

    def load_progress(self, key: str) -> tuple[float, float | None] | None:
        """The seconds since this model started loading, and the seconds that loading took last
        time; None if it is not loading."""
        if self._loading is None or self._loading[0] != key:
            return None
        return self._clock() - self._loading[1], self._load_times.get(key)

    @property
    def busy(self) -> bool:
        return self._loader is not None or any(model.leases for model in self._models.values())

    @property
    def waiting(self) -> int:
        """The number of requests that wait for a model to be loaded."""
        return len(self._waiting)

    async def unload_idle(self, key: str | None = None) -> list[str]:
        """Unload the models that are not in use, or the one with this key; returns their keys."""
        chosen = [model for model in self.loaded_models() if key in (None, model.key)]
        return [model.key for model in chosen if await self._unload(model)]

    async def unload_expired(self) -> None:
        now = self._clock()
        for model in self.loaded_models():
            if model.expires_at() <= now:
                await self._unload(model)

    def drain(self) -> None:
        """Accept no more requests, refuse those that wait for a model, and finish the others."""
        self._refusing = True
        self._waiting.fail(Stopping())
        self._changed.set()
        for model in self.loaded_models():
            model.scheduler.drain()

    def abort(self) -> None:
        """End all running answers with the error Stopping."""
        for model in self.loaded_models():
            model.scheduler.abort()

    def now(self) -> float:
        """The pool's clock, in seconds."""
        return self._clock()

    async def close(self, grace_s: float) -> None:
        self.drain()
        if self._loader is not None:
            with suppress(Exception):
                await self._loader
        closing = (
            asyncio.to_thread(model.scheduler.close, grace_s) for model in self.loaded_models()
        )
        await asyncio.gather(*closing)
        self._models.clear()

    async def _acquire(
        self, spec: ModelSpec, client: str, deadline: float, wait_s: float
    ) -> LoadedModel:
        """The model, with a lease for this request."""
        if self._refusing:
            raise Stopping()
        loaded = self._models.get(spec.key)
        if loaded is not None and not loaded.draining:
            loaded.leases += 1
            return loaded
        waiter: Waiter[LoadedModel] = Waiter(spec.key, client)
        self._waiting.put(waiter)
        self._wanted[spec.key] = spec
        self._start_loader()
        limit = None if math.isinf(wait_s) else max(0.0, deadline - time.monotonic())
        try:
            async with asyncio.timeout(limit):
                return await waiter.granted
        except TimeoutError:
            self._abandon(waiter)
            raise DeadlineExceeded(wait_s) from None
        except BaseException:
            self._abandon(waiter)
            raise

    def _abandon(self, waiter: Waiter[LoadedModel]) -> None:
        """The client is gone, or the deadline has passed: return the lease, if it was granted in
        the same moment."""
        self._waiting.remove(waiter)
        granted = waiter.granted
        if granted.done() and not granted.cancelled() and granted.exception() is None:
            self._release(granted.result(), waiter.client, self._keep_s)
        self._changed.set()

    def _release(self, loaded: LoadedModel, client: str, keep_s: float) -> None:
        loaded.leases -= 1
        loaded.last_used = self._clock()
        loaded.keep(client, math.inf if keep_s == FOREVER else loaded.last_used + keep_s)
        self._changed.set()

    def _start_loader(self) -> None:
        self._changed.set()
        if self._loader is None:
            self._loader = asyncio.ensure_future(self._serve_waiters())

    async def _serve_waiters(self) -> None:
        """Load one model after the other, in the order of the requests, until none wait."""
        try:
            while (key := self._waiting.next_key()) is not None:
                try:
                    await self._grant(self._wanted[key])
                except Exception as error:
                    self._waiting.fail(error, key)
        finally:
            self._loader = None
            self._wanted = {}

    async def _grant(self, spec: ModelSpec) -> None:
        """Lease the model to all requests that wait for it; load it first if necessary."""
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
        """swapped: another model was unloaded for this one, so it is protected for a while."""
        started = self._clock()
        log.info("loading %s", spec.key)
        self._loading = (spec.key, started)
        try:
            engine = as_batch_engine(await asyncio.to_thread(spec.load), self._limits["slots"])
        finally:
            self._loading = None
        self._load_times[spec.key] = self._clock() - started
        self._metrics.loads.labels(spec.key).inc()
        metrics = ModelMetrics(self._metrics, spec.key)
        scheduler = Scheduler(engine, metrics, name=spec.key, **self._limits)
        loaded = LoadedModel(spec.key, engine, scheduler, spec.size, self._clock())
        if swapped:
            loaded.protected_until += min(_MAX_PROTECTION_S, self._clock() - started)
        self._models[spec.key] = loaded
        self._metrics.models.set(len(self._models))

    def _check_size(self, spec: ModelSpec) -> None:
        if spec.size > self._budget:
            needed, budget = spec.size / 1e9, self._budget / 1e9
            raise OutOfResources(
                f"{spec.preset.name} needs {needed:.1f} GB; the limit is {budget:.1f} GB",
                "raise the limit with --memory, or use --weights int4",
            )

    async def _make_room(self, spec: ModelSpec) -> bool:
        """Unload models until this one fits, or no request waits for it; returns whether any was
        unloaded. A model in use must first drain."""
        swapped = False
        try:
            while self._waiting.has_waiters(spec.key):
                chosen = models_to_unload(self.loaded_models(), spec.size, self._budget)
                if not chosen:
                    break
                now = self._clock()
                for model in chosen:
                    model.draining = model.protected_until <= now
                idle = [model for model in chosen if model.draining and not model.leases]
                if idle:
                    swapped = await self._unload(idle[0]) or swapped
                else:
                    protected = (one.protected_until for one in chosen if not one.draining)
                    end = min(protected, default=None)
                    await self._wait_for_change(None if end is None else end - now)
        finally:
            for model in self._models.values():
                model.draining = False
        return swapped

    async def _wait_for_change(self, seconds: float | None) -> None:
        """Wait for a change of leases or waiters, for at most so long."""
        self._changed.clear()
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._changed.wait()

    async def _unload(self, loaded: LoadedModel) -> bool:
        """Unload a model; returns False if it is in use, or already unloaded."""
        if loaded.leases or self._models.get(loaded.key) is not loaded:
            return False
        del self._models[loaded.key]
        self._metrics.models.set(len(self._models))
        log.info("unloading %s", loaded.key)
        await asyncio.to_thread(loaded.scheduler.close)
        loaded.engine.unload()
        # Reference cycles keep tensors alive until the garbage collector runs, which may be late.
        await asyncio.to_thread(gc.collect)
        return True

    async def _load_adapters(self, loaded: LoadedModel, spec: ModelSpec) -> None:
        """Load the spec's adapters into the engine, unless it already has them."""
        if not spec.folders:
            return
        engine = unwrap(loaded.engine)
        if not isinstance(engine, TakesAdapters):
            raise no_live_adapters()
        async with loaded.adapter_lock:
            for name, folder in spec.folders.items():
                if name not in loaded.adapters:
                    await asyncio.to_thread(engine.load_adapter, name, folder)
                    loaded.adapters.add(name)
