"""The scheduler: joining, leaving, order, limits and ends of answers, with scripted engines."""

import asyncio
import threading
from collections.abc import Sequence
from typing import Any

import pytest

from llmchat.engines import Chunk, Finish, Sampling
from llmchat.engines.scripted import ScriptedAnswer, ScriptedEngine
from llmchat.errors import ContextOverflow, LlmchatError
from llmchat.prompt import Prompt
from llmchat.server.errors import BadRequest, Busy, DeadlineExceeded, Stopping
from llmchat.server.jobs import Job, merged_events
from llmchat.server.metrics import Metrics, ModelMetrics
from llmchat.server.scheduler import MAX_UNPACED, Scheduler
from llmchat.server.single_slot import SingleSlot, as_batch_engine


class Held(ScriptedEngine):
    """Runs a step only when `may` is released; records the prompts in each step."""

    def __init__(self, *replies: str, **more: Any):
        super().__init__(replies, **more)
        self.may = threading.Semaphore(0)
        self.steps: list[list[str]] = []
        self.waiting = False
        self.open: list[ScriptedAnswer] = []

    def begin(self, prompt: Prompt, sampling: Sampling, adapters: Any = None) -> ScriptedAnswer:
        answer = super().begin(prompt, sampling, adapters)
        answer.name = prompt.text  # type: ignore[attr-defined]
        self.open.append(answer)
        return answer

    def step(self, answers: Sequence[ScriptedAnswer]) -> list[list[Chunk | Finish]]:
        self.waiting = True
        self.may.acquire()
        self.waiting = False
        self.steps.append([answer.name for answer in answers])  # type: ignore[attr-defined]
        return super().step(answers)


class FailingAtFourthStep(Held):
    def step(self, answers: Sequence[ScriptedAnswer]) -> list[list[Chunk | Finish]]:
        if len(self.steps) == 3:
            raise RuntimeError("broken")
        return super().step(answers)


class FailingFor(Held):
    """Fails in each step with a prompt of this text."""

    def __init__(self, name: str, *replies: str):
        super().__init__(*replies)
        self.name = name

    def step(self, answers: Sequence[ScriptedAnswer]) -> list[list[Chunk | Finish]]:
        if any(answer.name == self.name for answer in answers):  # type: ignore[attr-defined]
            raise LlmchatError("out of luck")
        return super().step(answers)


class Single:
    """An engine without `begin` and `step`."""

    def __init__(self) -> None:
        self.inner = ScriptedEngine(["one two"])
        self.stream, self.encode, self.context = self.inner.stream, self.inner.encode, 100


class BrokenMetrics(ModelMetrics):
    def first_text(self, seconds: float) -> None:
        raise ZeroDivisionError


def text_in(events: Sequence[Chunk | Finish]) -> str:
    return "".join(event.text for event in events if isinstance(event, Chunk))


def model_metrics() -> ModelMetrics:
    return ModelMetrics(Metrics(), "test")


async def text_of(jobs: list[Job]) -> list[str]:
    texts = [""] * len(jobs)
    async for number, events in merged_events(jobs):
        texts[number] += text_in(events)
    return texts


def ask(scheduler: Scheduler, *texts: str, client: str = "", **sampling: Any) -> list[Job]:
    return scheduler.submit(
        [(Prompt(text, ()), Sampling(**sampling)) for text in texts], (), client
    )


async def until(condition: Any) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.001)


async def test_answers_join_and_leave_between_two_steps() -> None:
    engine = Held("one two three")
    scheduler = Scheduler(engine, model_metrics(), slots=4)
    first = ask(scheduler, "a")
    engine.may.release()
    await until(lambda: len(engine.steps) == 1)
    second = ask(scheduler, "b")
    engine.may.release(50)
    assert await text_of(first) == await text_of(second) == ["one two three"]
    assert engine.steps[0] == ["a"] and ["a", "b"] in engine.steps and engine.steps[-1] == ["b"]
    scheduler.close()


async def test_all_choices_of_a_request_are_answered() -> None:
    scheduler = Scheduler(ScriptedEngine(["x y", "z"]), model_metrics(), slots=2)
    assert sorted(await text_of(ask(scheduler, "a", "b", "c"))) == ["x y", "x y", "z"]
    scheduler.close()


async def pieces_of_answers(count: int, reply: str) -> list[list[str]]:
    """The pieces in which each of `count` answers arrives, if each step waits for its readers."""
    engine = Held(reply)
    scheduler = Scheduler(engine, model_metrics(), slots=count, send_interval_s=60)
    jobs = [ask(scheduler, f"{number}") for number in range(count)]
    received: list[list[str]] = [[] for _ in jobs]

    async def read(number: int) -> None:
        async for _, events in merged_events(jobs[number]):
            received[number].append(text_in(events))

    readers = [asyncio.create_task(read(number)) for number in range(count)]
    await until(lambda: scheduler.waiting == 0)
    while not all(reader.done() for reader in readers):
        steps = len(engine.steps)
        engine.may.release()
        await until(lambda steps=steps: len(engine.steps) > steps or not scheduler.running)
        # When the next step waits, the events of this one have been sent to the event loop.
        await until(lambda: engine.waiting or not scheduler.running)
        for _ in range(3):
            await asyncio.sleep(0)
    await asyncio.gather(*readers)
    scheduler.close()
    assert all("".join(pieces) == reply for pieces in received)
    return received


async def test_many_answers_get_their_first_token_at_once_and_the_rest_at_intervals() -> None:
    received = await pieces_of_answers(MAX_UNPACED + 1, "one two three four five six")
    assert all(pieces[0] == "one" and len(pieces) == 2 for pieces in received)


async def test_few_answers_get_every_token_at_once() -> None:
    received = await pieces_of_answers(MAX_UNPACED, "one two three four five six")
    assert all(len(pieces) >= 6 for pieces in received)


async def test_text_before_an_error_arrives_before_the_error() -> None:
    engine = FailingAtFourthStep("one two three four")
    scheduler = Scheduler(engine, model_metrics(), slots=8, send_interval_s=60)
    jobs = ask(scheduler, *"abcdef")
    received = [""] * len(jobs)
    engine.may.release(10)
    with pytest.raises(RuntimeError, match="broken"):
        async for number, events in merged_events(jobs):
            received[number] += text_in(events)
    assert received[0] == "one two"
    scheduler.close()


async def test_clients_take_turns_for_slots() -> None:
    engine = Held("word")
    scheduler = Scheduler(engine, model_metrics(), slots=1)
    many = [ask(scheduler, f"greedy {number}", client="greedy") for number in range(3)]
    await until(lambda: scheduler.running == 1)
    modest = ask(scheduler, "modest", client="modest")
    engine.may.release(50)
    for jobs in (*many, modest):
        await text_of(jobs)
    order = list(dict.fromkeys(name for names in engine.steps for name in names))
    assert order.index("modest") <= 2 and order[-1] == "greedy 2"
    scheduler.close()


async def test_cancelled_request_gets_no_further_step() -> None:
    engine = Held("one two three four five")
    scheduler = Scheduler(engine, model_metrics(), slots=2)
    leaving, staying = ask(scheduler, "leaving"), ask(scheduler, "staying")
    await until(lambda: scheduler.running == 2)
    engine.may.release(2)
    await until(lambda: len(engine.steps) == 2)
    scheduler.cancel(leaving)
    engine.may.release(50)
    assert await text_of(staying) == ["one two three four five"]
    # The step that was waiting when the job was cancelled is the last one.
    assert sum("leaving" in names for names in engine.steps) <= 3
    assert engine.open[0].done and scheduler.running == 0
    scheduler.close()


async def test_request_cancelled_while_waiting_is_never_started() -> None:
    engine = Held("one two")
    scheduler = Scheduler(engine, model_metrics(), slots=1)
    first, second = ask(scheduler, "first"), ask(scheduler, "second")
    await until(lambda: scheduler.running == 1)
    scheduler.cancel(second)
    engine.may.release(50)
    await text_of(first)
    await until(lambda: scheduler.waiting == 0)
    assert len(engine.open) == 1
    scheduler.close()


async def test_a_full_queue_reports_when_to_retry() -> None:
    engine = Held("word")
    scheduler = Scheduler(engine, model_metrics(), slots=1, queue=2)
    jobs = [ask(scheduler, str(number)) for number in range(3)]
    with pytest.raises(Busy) as caught:
        ask(scheduler, "one too many")
    assert int(caught.value.headers["Retry-After"]) >= 1
    with pytest.raises(BadRequest):
        ask(scheduler, *"abcd")
    engine.may.release(50)
    for job in jobs:
        assert await text_of(job) == ["word"]
    scheduler.close()


async def test_the_client_that_fills_the_queue_loses_a_place_to_another() -> None:
    engine = Held("word")
    scheduler = Scheduler(engine, model_metrics(), slots=1, queue=3)
    greedy = [ask(scheduler, str(number), client="greedy") for number in range(4)]
    await until(lambda: scheduler.running == 1)
    modest = ask(scheduler, "modest", client="modest")
    with pytest.raises(Busy):
        await text_of(greedy[-1])
    with pytest.raises(Busy):
        ask(scheduler, "again", client="greedy")
    with pytest.raises(Busy):
        ask(scheduler, "as many as the others have", client="modest")
    engine.may.release(50)
    for jobs in (modest, *greedy[:-1]):
        assert await text_of(jobs) == ["word"]
    scheduler.close()


async def test_an_answer_past_its_deadline_ends_with_an_error() -> None:
    engine = Held("one two")
    scheduler = Scheduler(engine, model_metrics(), slots=1)
    jobs, waiting = ask(scheduler, "a"), ask(scheduler, "b")
    await until(lambda: scheduler.running == 1)
    jobs[0].deadline = waiting[0].deadline = 0.0
    engine.may.release(2)
    with pytest.raises(DeadlineExceeded):
        await text_of(waiting)
    with pytest.raises(DeadlineExceeded):
        await text_of(jobs)
    assert engine.open[0].done
    scheduler.close()


async def test_closing_finishes_running_answers_and_rejects_waiting_ones() -> None:
    engine = Held("one two")
    scheduler = Scheduler(engine, model_metrics(), slots=1)
    running, waiting = ask(scheduler, "running"), ask(scheduler, "waiting")
    await until(lambda: scheduler.running == 1)
    closing = asyncio.create_task(asyncio.to_thread(scheduler.close, 10.0))
    with pytest.raises(Stopping):
        await text_of(waiting)
    with pytest.raises(Stopping):
        ask(scheduler, "late")
    engine.may.release(50)
    assert await text_of(running) == ["one two"]
    await closing


async def test_closing_without_grace_aborts_running_answers() -> None:
    engine = Held("one two three")
    scheduler = Scheduler(engine, model_metrics())
    jobs = ask(scheduler, "a")
    await until(lambda: scheduler.running == 1)
    closing = asyncio.create_task(asyncio.to_thread(scheduler.close))
    await until(lambda: jobs[0].deadline == 0)
    engine.may.release(1)
    with pytest.raises(Stopping):
        await text_of(jobs)
    await closing


async def test_an_invalid_prompt_ends_only_its_own_answer() -> None:
    scheduler = Scheduler(ScriptedEngine(["fine"], context=20), model_metrics(), slots=4)
    bad, good = ask(scheduler, "word " * 30), ask(scheduler, "hi")
    with pytest.raises(ContextOverflow):
        await text_of(bad)
    assert await text_of(good) == ["fine"]
    scheduler.close()


async def test_a_failed_step_ends_only_its_own_answers() -> None:
    engine = FailingFor("bad", "fine")
    scheduler = Scheduler(engine, model_metrics())
    bad = ask(scheduler, "bad")
    with pytest.raises(LlmchatError, match="out of luck"):
        await text_of(bad)
    assert engine.open[0].done
    engine.may.release(50)
    assert await text_of(ask(scheduler, "good")) == ["fine"]
    scheduler.close()


async def test_a_dead_scheduler_thread_fails_all_jobs() -> None:
    scheduler = Scheduler(ScriptedEngine(["word " * 9]), BrokenMetrics(Metrics(), "test"), slots=1)
    running, waiting = ask(scheduler, "running"), ask(scheduler, "waiting")
    for jobs in (running, waiting):
        with pytest.raises(ZeroDivisionError):
            await text_of(jobs)
    with pytest.raises(Stopping):
        ask(scheduler, "late")
    scheduler.close()


async def test_an_engine_without_batching_answers_one_request_at_a_time() -> None:
    engine = as_batch_engine(Single(), 8)  # type: ignore[arg-type]
    assert isinstance(engine, SingleSlot) and engine.slots == 1 and engine.context == 100
    scheduler = Scheduler(engine, model_metrics(), slots=8)
    assert scheduler.slots == 1
    assert await text_of(ask(scheduler, "a", "b")) == ["one two", "one two"]
    jobs = ask(scheduler, "c")
    scheduler.cancel(jobs)
    assert await text_of(ask(scheduler, "d")) == ["one two"]
    scheduler.close()


async def test_a_slow_reader_does_not_delay_others() -> None:
    scheduler = Scheduler(ScriptedEngine(["word " * 200]), model_metrics(), slots=2)
    slow, fast = ask(scheduler, "slow"), ask(scheduler, "fast")
    assert await text_of(fast) == ["word " * 200]
    # None of it was read meanwhile; all of it is still there.
    assert await text_of(slow) == ["word " * 200]
    scheduler.close()


async def test_finished_answers_are_measured() -> None:
    metrics = Metrics()
    scheduler = Scheduler(ScriptedEngine(["one two"]), ModelMetrics(metrics, "m"))
    await text_of(ask(scheduler, "a", "b"))
    value = metrics.registry.get_sample_value
    await until(lambda: value("llmchat_answers_running", {"model": "m"}) == 0)
    scheduler.close()
    assert value("llmchat_answers_total", {"model": "m", "reason": "stop"}) == 2
    assert value("llmchat_reply_tokens_total", {"model": "m"}) == 6
    assert value("llmchat_time_to_first_token_seconds_count", {"model": "m"}) == 2
    assert value("llmchat_batch_size_bucket", {"model": "m", "le": "2.0"}) == value(
        "llmchat_batch_size_count", {"model": "m"}
    )


async def test_unfinished_answers_are_counted_by_reason() -> None:
    metrics = Metrics()
    engine = Held("one two three", context=50)
    scheduler = Scheduler(engine, ModelMetrics(metrics, "m"), slots=1, queue=3)

    def count(reason: str) -> float | None:
        return metrics.registry.get_sample_value(
            "llmchat_answers_total", {"model": "m", "reason": reason}
        )

    first, waiting = ask(scheduler, "first"), ask(scheduler, "waiting")
    await until(lambda: scheduler.running == 1)
    scheduler.cancel([*first, *waiting])
    engine.may.release()
    await until(lambda: count("cancelled") == 2)
    late = ask(scheduler, "late")
    await until(lambda: scheduler.running == 1)
    late[0].deadline = 0.0
    engine.may.release()
    await until(lambda: count("timeout") == 1)
    ask(scheduler, "word " * 60)
    await until(lambda: count("refused") == 1)
    cut, never = ask(scheduler, "cut"), ask(scheduler, "never begun")
    await until(lambda: scheduler.running == 1)
    scheduler.drain()
    scheduler.abort()
    engine.may.release()
    for jobs in (cut, never):
        with pytest.raises(Stopping):
            await text_of(jobs)
    await until(lambda: count("stopped") == 2)
    scheduler.close()
    assert count("failed") == 0 and count("stop") == 0
