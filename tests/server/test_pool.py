"""Models on demand: loaded once, within a budget, unloaded in order and on time."""

import asyncio
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace
from support.serving import model_spec, serving

from llmchat.engines import Finish, Sampling
from llmchat.engines.scripted import ScriptedEngine
from llmchat.errors import Mismatch, OutOfResources
from llmchat.prompt import Prompt
from llmchat.server.errors import Busy, DeadlineExceeded, Stopping
from llmchat.server.jobs import merged_events
from llmchat.server.loaded_model import ModelSpec
from llmchat.server.metrics import Metrics
from llmchat.server.pool import FOREVER, Pool


class Models:
    """A pool of fake models whose names contain their sizes (`a40` takes 40), with a fake clock."""

    def __init__(
        self, budget: int = 100, keep_s: float = FOREVER, load_s: float = 0.0, **limits: Any
    ):
        self.loads: list[str] = []
        self.engines: list[ScriptedEngine] = []
        self.time, self.load_s = 0.0, load_s
        self.may_load = threading.Event()
        self.may_load.set()
        self.pool = Pool(
            self.spec, Metrics(), budget=budget, keep_s=keep_s, clock=lambda: self.time, **limits
        )

    def spec(self, name: str) -> ModelSpec:
        def load() -> ScriptedEngine:
            assert self.may_load.wait(30)
            self.loads.append(name)
            self.time += self.load_s
            self.engines.append(ScriptedEngine())
            return self.engines[-1]

        return model_spec(load, key=name, size=int(name[1:]))

    async def use(self, *names: str, client: str = "") -> None:
        for name in names:
            async with self.pool.lease(name, client=client):
                self.time += 1

    @property
    def in_memory(self) -> list[str]:
        return sorted(in_memory.key for in_memory in self.pool.loaded_models())


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.001)


async def test_a_model_is_loaded_once_at_first_use() -> None:
    models = Models()
    await models.use("a40", "b40", "a40")
    assert models.loads == ["a40", "b40"] and models.in_memory == ["a40", "b40"]
    await models.pool.close(0)


async def test_concurrent_requests_wait_for_one_load() -> None:
    models = Models()
    models.may_load.clear()
    asking = [asyncio.create_task(models.use("a40")) for _ in range(5)]
    await asyncio.sleep(0)
    asking[0].cancel()
    models.may_load.set()
    done = await asyncio.gather(*asking, return_exceptions=True)
    assert (
        models.loads == ["a40"]
        and isinstance(done[0], asyncio.CancelledError)
        and done[1:] == [None] * 4
    )
    await models.pool.close(0)


async def test_the_least_recently_used_model_makes_room() -> None:
    models = Models()
    await models.use("a40", "b40", "a40", "c40")
    assert models.in_memory == ["a40", "c40"]
    await models.use("d90")
    assert models.in_memory == ["d90"]
    await models.pool.close(0)


async def test_a_model_in_use_is_not_unloaded() -> None:
    models = Models()
    async with models.pool.lease("a60"):
        assert await models.pool.unload_idle() == []
        models.time = 1e9
        await models.pool.unload_expired()
        assert models.in_memory == ["a60"]
    await models.use("b60")
    assert models.in_memory == ["b60"]
    await models.pool.close(0)


async def test_a_model_without_room_waits_until_others_are_idle() -> None:
    models = Models()
    async with models.pool.lease("a60"):
        waiting = asyncio.create_task(models.use("b60"))
        await until(lambda: models.pool.loaded_models()[0].draining)
        late = asyncio.create_task(models.use("a60"))
        await asyncio.sleep(0)
        assert models.in_memory == ["a60"] and not waiting.done()
    await waiting
    await late
    assert models.loads == ["a60", "b60", "a60"], (
        "a loaded model accepts no requests while another waits for its memory"
    )
    await models.pool.close(0)


async def test_waiting_for_a_model_ends_with_the_timeout() -> None:
    models = Models(timeout_s=0.05)
    async with models.pool.lease("a60"):
        with pytest.raises(DeadlineExceeded):
            await models.use("b60")
        await models.use("a60")
    models.may_load.clear()
    with pytest.raises(DeadlineExceeded):
        await models.use("b60")
    models.may_load.set()
    await until(lambda: not models.pool.busy)
    await models.pool.close(0)


async def test_a_request_that_loaded_a_model_is_answered_by_it() -> None:
    models = Models()
    answered: list[str] = []

    async def ask(name: str) -> None:
        for _ in range(2):
            async with models.pool.lease(name) as served:
                (jobs,) = [
                    served.scheduler.submit(
                        [(Prompt("hi", ()), Sampling())], deadline=served.deadline
                    )
                ]
                async for _, events in merged_events(jobs):
                    answered.extend(name for event in events if isinstance(event, Finish))

    async with asyncio.timeout(60):
        await asyncio.gather(ask("a60"), ask("b60"), ask("c60"))
    assert sorted(answered) == ["a60"] * 2 + ["b60"] * 2 + ["c60"] * 2
    assert len(models.loads) <= 6, "no model is loads without an answer"
    await models.pool.close(0)


async def test_a_model_is_protected_after_a_swap_for_as_long_as_the_swap_took() -> None:
    models = Models(load_s=10)
    await models.use("a60", "b60")
    waiting = asyncio.create_task(models.use("a60"))
    await until(lambda: models.pool.busy)
    for _ in range(3):
        await models.use("b60")
    assert models.loads == ["a60", "b60"] and not waiting.done()
    models.time += 10
    await models.use("c0")
    await waiting
    assert models.loads == ["a60", "b60", "a60", "c0"]
    await models.pool.close(0)


async def test_models_are_loaded_in_the_order_of_requests() -> None:
    models = Models()
    models.may_load.clear()
    asking = [asyncio.create_task(models.use(name)) for name in ("a60", "b60", "a60", "c60", "b60")]
    await until(lambda: models.pool.waiting == 5)
    models.may_load.set()
    await asyncio.gather(*asking)
    assert models.loads == ["a60", "b60", "c60"]
    await models.pool.close(0)


async def test_no_model_is_loaded_for_a_disconnected_client() -> None:
    models = Models()
    async with models.pool.lease("a60"):
        gone = asyncio.create_task(models.use("b60"))
        await until(lambda: models.pool.waiting == 1)
        gone.cancel()
        await until(lambda: models.pool.waiting == 0)
        await models.use("a60")
    await until(lambda: not models.pool.busy)
    assert models.loads == ["a60"]
    await models.pool.close(0)


async def test_clients_share_the_load_queue() -> None:
    models = Models(slots=1, queue=2)
    async with models.pool.lease("a60"):
        greedy = [asyncio.create_task(models.use("b60", client="greedy")) for _ in range(3)]
        await until(lambda: models.pool.waiting == 3)
        with pytest.raises(Busy):
            await models.use("b60", client="greedy")
        modest = asyncio.create_task(models.use("b60", client="modest"))
        with pytest.raises(Busy):
            await greedy[-1]
    await asyncio.gather(*greedy[:2], modest)
    await models.pool.close(0)


async def test_draining_refuses_requests_that_wait_for_a_model() -> None:
    models = Models()
    async with models.pool.lease("a60"):
        waiting = asyncio.create_task(models.use("b60"))
        await until(lambda: models.pool.waiting == 1)
        models.pool.drain()
        with pytest.raises(Stopping):
            await waiting
        with pytest.raises(Stopping):
            await models.use("a60")
    await models.pool.close(0)


async def test_a_model_larger_than_the_budget_is_refused_with_both_sizes() -> None:
    models = Models(budget=2_000_000_000)
    with pytest.raises(OutOfResources, match=r"needs 3\.0 GB; the limit is 2\.0 GB"):
        await models.use("a3000000000")
    assert models.in_memory == []


async def test_idle_models_are_unloaded_after_their_time() -> None:
    models = Models(keep_s=300)
    await models.use("a10", "b10")
    async with models.pool.lease("b10", keep_s=FOREVER):
        pass
    async with models.pool.lease("c10", keep_s=0):
        pass
    await models.pool.unload_expired()
    assert models.in_memory == ["a10", "b10"]
    models.time += 301
    await models.pool.unload_expired()
    assert models.in_memory == ["b10"]
    await models.use("b10")
    models.time += 301
    await models.pool.unload_expired()
    assert models.in_memory == [], "the last request decides how long the model stays"


async def test_no_client_shortens_the_keep_alive_of_another() -> None:
    models = Models(keep_s=300)
    await models.use("a10", client="ann")
    for client in ("bob", *(str(number) for number in range(1000))):
        async with models.pool.lease("a10", keep_s=0, client=client):
            pass
    await models.pool.unload_expired()
    assert models.in_memory == ["a10"]
    assert len(models.pool.loaded_models()[0].keep_until) <= 256
    models.time += 301
    await models.pool.unload_expired()
    assert models.in_memory == []


async def test_no_client_unloads_a_model_of_the_command_line() -> None:
    models = Models(keep_s=FOREVER)
    await models.use("a10")
    async with models.pool.lease("a10", keep_s=0, client="ann"):
        pass
    models.time += 1e9
    await models.pool.unload_expired()
    assert models.in_memory == ["a10"]


async def test_unloading_one_or_all_idle_models() -> None:
    models = Models()
    await models.use("a10", "b10", "c10")
    assert await models.pool.unload_idle("b10") == ["b10"] and models.in_memory == ["a10", "c10"]
    assert await models.pool.unload_idle("none") == []
    assert sorted(await models.pool.unload_idle()) == ["a10", "c10"] and models.in_memory == []


async def test_a_failed_load_is_reported_and_retried() -> None:
    models = Models()
    tries = []

    def load() -> Any:
        tries.append(1)
        if len(tries) == 1:
            raise Mismatch("no")
        return ScriptedEngine()

    broken = model_spec(load)
    with pytest.raises(Mismatch):
        async with models.pool.lease(broken):
            pass
    async with models.pool.lease(broken) as served:
        assert served.engine.context == 2048
    await models.pool.close(0)


async def test_adapters_are_loaded_once() -> None:
    class WithAdapters(ScriptedEngine):
        def __init__(self) -> None:
            super().__init__()
            self.put_on: list[str] = []

        def load_adapter(self, name: str, folder: Path) -> None:
            self.put_on.append(name)

        def adapt(self, wanted: Sequence[tuple[Path, float]], name: str) -> None:
            raise AssertionError("adapters of a request are chosen with it")

    engine = WithAdapters()
    models = Models()
    base = model_spec(lambda: engine)
    one = replace(base, adapters=(("one", 1.0),), folders={"one": Path("one")})
    two = replace(base, adapters=(("two", 0.5),), folders={"two": Path("two")})
    for asked in (base, one, two, one):
        async with models.pool.lease(asked) as served:
            assert served.engine is engine and served.adapters == asked.adapters
    assert engine.put_on == ["one", "two"]
    await models.pool.close(0)


def test_clients_of_two_models_that_do_not_fit_together_are_both_answered(
    tmp_path: Path,
) -> None:
    models = {
        name: model_spec(lambda: ScriptedEngine(["Hello."]), key=name, size=60)
        for name in ("a", "b")
    }
    with serving(models, tmp_path) as run, ThreadPoolExecutor(2) as clients:

        def talk(name: str) -> list[int]:
            ask = {"model": name, "messages": [{"role": "user", "content": "hi"}]}
            return [run.http.post("/v1/chat/completions", json=ask).status_code for _ in range(2)]

        assert list(clients.map(talk, models)) == [[200] * 2] * 2
        assert sum(run.metric("llmchat_model_loads_total", model=name) for name in models) <= 4


def test_a_request_that_waits_for_a_model_too_long_is_a_504(tmp_path: Path) -> None:
    models = {name: model_spec(ScriptedEngine, key=name, size=60) for name in ("a", "b")}
    with serving(models, tmp_path, timeout_s=0.2) as run:
        held, done = threading.Event(), threading.Event()

        async def hold() -> None:
            async with run.state.pool.lease("a", timeout_s=60):
                held.set()
                await asyncio.to_thread(done.wait, 30)

        holding = asyncio.run_coroutine_threadsafe(hold(), run.loop)
        assert held.wait(30)
        late = run.http.post(
            "/v1/chat/completions",
            json={"model": "b", "messages": [{"role": "user", "content": "hi"}]},
        )
        done.set()
        holding.result(30)
    assert late.status_code == 504 and late.json()["error"]["code"] == "timeout"
