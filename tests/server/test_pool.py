"""Models on demand: loaded once, kept within a budget, unloaded in the right order and at the right time."""

import asyncio
import threading
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace
from serving import recipe

from llmchat.engines.scripted import ScriptedEngine
from llmchat.errors import Mismatch, OutOfResources
from llmchat.server.errors import Unavailable
from llmchat.server.metrics import Metrics
from llmchat.server.pool import FOREVER, Pool, Recipe


class Shelf:
    """Makes pools of models that cost as much as their name says: `a40` takes 40. Keeps what was loaded, and has a clock of its own."""

    def __init__(self, budget: int = 100, keep_s: float = FOREVER):
        self.loaded: list[str] = []
        self.engines: list[ScriptedEngine] = []
        self.time = 0.0
        self.may_load = threading.Event()
        self.may_load.set()
        self.pool = Pool(self.recipe, Metrics(), budget=budget, keep_s=keep_s, clock=lambda: self.time)

    def recipe(self, name: str) -> Recipe:
        def load() -> ScriptedEngine:
            assert self.may_load.wait(10)
            self.loaded.append(name)
            self.engines.append(ScriptedEngine())
            return self.engines[-1]

        return recipe(load, key=name, size=int(name[1:]))

    async def use(self, *names: str) -> None:
        for name in names:
            async with self.pool.lease(name):
                self.time += 1

    @property
    def resident(self) -> list[str]:
        return sorted(resident.key for resident in self.pool.residents())


async def test_a_model_is_loaded_at_first_use_and_once() -> None:
    shelf = Shelf()
    await shelf.use("a40", "b40", "a40")
    assert shelf.loaded == ["a40", "b40"] and shelf.resident == ["a40", "b40"]
    await shelf.pool.close(0)


async def test_those_who_ask_while_it_loads_wait_for_the_same() -> None:
    shelf = Shelf()
    shelf.may_load.clear()
    asking = [asyncio.create_task(shelf.use("a40")) for _ in range(5)]
    await asyncio.sleep(0)
    asking[0].cancel()
    shelf.may_load.set()
    done = await asyncio.gather(*asking, return_exceptions=True)
    assert shelf.loaded == ["a40"] and isinstance(done[0], asyncio.CancelledError) and done[1:] == [None] * 4
    await shelf.pool.close(0)


async def test_the_least_recently_used_makes_room() -> None:
    shelf = Shelf()
    await shelf.use("a40", "b40", "a40", "c40")
    assert shelf.resident == ["a40", "c40"]
    await shelf.use("d90")
    assert shelf.resident == ["d90"]
    await shelf.pool.close(0)


async def test_a_model_that_is_used_is_not_unloaded() -> None:
    shelf = Shelf()
    async with shelf.pool.lease("a60"):
        with pytest.raises(Unavailable) as caught:
            await shelf.use("b60")
        assert "Retry-After" in caught.value.headers and shelf.resident == ["a60"]
        assert await shelf.pool.stop() == []
        shelf.time = 1e9
        await shelf.pool.sweep()
        assert shelf.resident == ["a60"]
    await shelf.use("b60")
    assert shelf.resident == ["b60"]
    await shelf.pool.close(0)


async def test_a_model_beyond_the_budget_is_refused_with_both_numbers() -> None:
    shelf = Shelf(budget=2_000_000_000)
    with pytest.raises(OutOfResources, match=r"needs 3\.0 GB; models may take 2\.0 GB"):
        await shelf.use("a3000000000")
    assert shelf.resident == []


async def test_idle_models_go_after_their_time() -> None:
    shelf = Shelf(keep_s=300)
    await shelf.use("a10", "b10")
    async with shelf.pool.lease("b10", keep_s=FOREVER):
        pass
    async with shelf.pool.lease("c10", keep_s=0):
        pass
    await shelf.pool.sweep()
    assert shelf.resident == ["a10", "b10"]
    shelf.time += 301
    await shelf.pool.sweep()
    assert shelf.resident == ["b10"]
    await shelf.use("b10")
    shelf.time += 301
    await shelf.pool.sweep()
    assert shelf.resident == [], "the last request decides how long it stays"


async def test_stopping_one_or_all() -> None:
    shelf = Shelf()
    await shelf.use("a10", "b10", "c10")
    assert await shelf.pool.stop("b10") == ["b10"] and shelf.resident == ["a10", "c10"]
    assert await shelf.pool.stop("none") == []
    assert sorted(await shelf.pool.stop()) == ["a10", "c10"] and shelf.resident == []


async def test_a_load_that_fails_is_told_and_tried_again() -> None:
    shelf = Shelf()
    tries = []

    def load() -> Any:
        tries.append(1)
        if len(tries) == 1:
            raise Mismatch("no")
        return ScriptedEngine()

    broken = recipe(load)
    with pytest.raises(Mismatch):
        async with shelf.pool.lease(broken):
            pass
    async with shelf.pool.lease(broken) as served:
        assert served.engine.context == 2048
    await shelf.pool.close(0)


async def test_adapters_are_put_on_once_beside_each_other() -> None:
    class WithAdapters(ScriptedEngine):
        def __init__(self) -> None:
            super().__init__()
            self.put_on: list[str] = []

        def load_adapter(self, name: str, folder: Path) -> None:
            self.put_on.append(name)

    engine = WithAdapters()
    shelf = Shelf()
    base = recipe(lambda: engine)
    one = replace(base, adapters=(("one", 1.0),), folders={"one": Path("one")})
    two = replace(base, adapters=(("two", 0.5),), folders={"two": Path("two")})
    for asked in (base, one, two, one):
        async with shelf.pool.lease(asked) as served:
            assert served.engine is engine and served.adapters == asked.adapters
    assert engine.put_on == ["one", "two"]
    await shelf.pool.close(0)
