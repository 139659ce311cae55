"""Work on prompts: few calls at once, fair to clients; huge prompts are refused early."""

import asyncio
import math
import threading
from pathlib import Path

import pytest
from support.serving import model_spec, serving

from llmchat.engines.scripted import ScriptedEngine
from llmchat.server.errors import Busy, DeadlineExceeded
from llmchat.server.prompt_workers import PromptWorkers


class Work:
    """Calls that end when `may` is released; records their order and how many ran at once."""

    def __init__(self, workers: PromptWorkers):
        self.workers = workers
        self.may = threading.Semaphore(0)
        self.begun: list[str] = []
        self.running = self.most = 0

    def ask(self, name: str, client: str, deadline: float = math.inf) -> "asyncio.Task[str]":
        return asyncio.create_task(self.workers.run(client, deadline, lambda: self._work(name)))

    def _work(self, name: str) -> str:
        self.begun.append(name)
        self.running += 1
        self.most = max(self.most, self.running)
        assert self.may.acquire(timeout=30)
        self.running -= 1
        return name

    async def until_begun(self, count: int) -> None:
        async with asyncio.timeout(10):
            while len(self.begun) < count:
                await asyncio.sleep(0.001)


async def test_clients_take_turns_and_few_calls_run_at_once() -> None:
    work = Work(PromptWorkers(1))
    greedy = [work.ask(f"greedy {number}", "greedy") for number in range(3)]
    await work.until_begun(1)
    modest = work.ask("modest", "modest")
    await asyncio.sleep(0)
    work.may.release(10)
    assert await asyncio.gather(*greedy, modest) == ["greedy 0", "greedy 1", "greedy 2", "modest"]
    assert work.begun.index("modest") <= 2 and work.most == 1


async def test_full_workers_refuse_the_client_that_fills_them() -> None:
    work = Work(PromptWorkers(1, capacity=2))
    first = work.ask("0", "greedy")
    await work.until_begun(1)
    greedy = [work.ask(str(number), "greedy") for number in (1, 2, 3)]
    with pytest.raises(Busy):
        await greedy[2]
    modest = work.ask("modest", "modest")
    with pytest.raises(Busy):
        await greedy[1]
    work.may.release(10)
    assert await asyncio.gather(first, greedy[0], modest) == ["0", "1", "modest"]


async def test_cancelled_and_late_calls_free_their_worker() -> None:
    work = Work(PromptWorkers(1))
    gone = work.ask("gone", "a")
    await work.until_begun(1)
    waiting, late = work.ask("waiting", "b"), work.ask("late", "c", deadline=0.0)
    with pytest.raises(DeadlineExceeded):
        await late
    waiting.cancel()
    gone.cancel()
    last = work.ask("last", "d")
    async with asyncio.timeout(10):
        while not (waiting.cancelled() and gone.cancelled() and work.workers.waiting == 1):
            await asyncio.sleep(0)
    assert work.begun == ["gone"], "the thread of a disconnected client still runs"
    work.may.release(10)
    assert await last == "last" and work.begun == ["gone", "last"]


async def test_failed_calls_free_their_worker() -> None:
    workers = PromptWorkers(1)
    for _ in range(3):
        with pytest.raises(ZeroDivisionError):
            await workers.run("a", math.inf, lambda: 1 // 0)
    assert await workers.run("a", math.inf, lambda: "fine") == "fine"


class Counting(ScriptedEngine):
    def __init__(self) -> None:
        super().__init__(["Hello."])
        self.read = 0

    def count(self, text: str) -> int:
        self.read += len(text)
        return super().count(text)


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/completions", {"prompt": "some words " * 300_000}),
        ("/v1/completions", {"prompt": ["hi", "some words " * 300_000]}),
        (
            "/v1/chat/completions",
            {"messages": [{"role": "user", "content": "some words " * 300_000}]},
        ),
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": "a"}] * 60_000}),
    ],
    ids=["text", "one of several texts", "chat", "many messages"],
)
def test_a_huge_prompt_is_refused_after_reading_its_start(
    tmp_path: Path, path: str, body: dict[str, object]
) -> None:
    engine = Counting()
    with serving({"m": model_spec(lambda: engine)}, tmp_path) as run:
        refused = run.http.post(path, json={"model": "m", **body})
        assert refused.status_code == 400, refused.text[:200]
        assert engine.read < 100_000
        assert (
            run.http.post("/v1/completions", json={"model": "m", "prompt": "hi"}).status_code == 200
        )
