"""Continuous batching: one thread owns an engine and makes all answers at once; they join and leave between two passes through the model.

Nothing here knows of HTTP, models or prompts. Events go to the event loop once a pass, not once a token of each answer.
"""

import asyncio
import logging
import threading
import time
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping, Sequence
from typing import Literal, Protocol

from llmchat.engines import Adapters, Chunk, Finish, Sampling
from llmchat.engines.capabilities import Answer, BatchEngine
from llmchat.errors import LlmchatError
from llmchat.prompt import Prompt
from llmchat.server.errors import BadRequest, Busy, DeadlineExceeded, Refusal, Stopping
from llmchat.server.fair_queue import FairQueue, QueueFull

log = logging.getLogger("llmchat.server")
Event = Chunk | Finish
UnfinishedReason = Literal["cancelled", "timeout", "stopped", "refused", "failed"]
# Where more answers than FEW run at once, each is told its news so often: sending every token of every answer by itself takes a fifth of the
# machine from the model, and nobody sees the difference.
FEW, PACE_S = 4, 0.03


class SchedulerMetrics(Protocol):
    """Who is told what happens. Called from the scheduler's thread."""

    def load(self, running: int, waiting: int) -> None: ...

    def first(self, seconds: float) -> None: ...

    def passed(self, seconds: float, tokens: int) -> None: ...

    def ended(self, finish: Finish) -> None: ...

    def left(self, reason: UnfinishedReason) -> None:
        """An answer that did not come to its end."""
        ...


class Job:
    """One answer that was asked for. Its events are taken in the loop it was made in; `news` is set when there are some.

    A reader that is slow holds nothing up: what it has not taken waits here, at most one answer's text.
    """

    def __init__(
        self,
        prompt: Prompt,
        sampling: Sampling,
        adapters: Adapters | None,
        client: str,
        deadline: float,
        news: asyncio.Event,
    ):
        self.prompt = prompt
        self.sampling = sampling
        self.adapters = adapters
        self.client = client
        self.deadline = deadline
        self.news = news
        self.asked = time.monotonic()
        self.answer: Answer | None = None
        self.begun = False
        self.gone = False
        self.held: list[Event] = []
        self.told_at = 0.0
        self.loop = asyncio.get_running_loop()
        self._inbox: list[Event | Exception] = []

    def deliver(self, events: Iterable[Event | Exception]) -> None:
        """In the loop's thread."""
        self._inbox.extend(events)
        self.news.set()

    def take(self) -> list[Event]:
        """All that has come since the last time. Raises what the engine raised."""
        events, self._inbox = self._inbox, []
        for event in events:
            if isinstance(event, Exception):
                raise event
        return [event for event in events if not isinstance(event, Exception)]


async def merged_events(jobs: Sequence[Job]) -> AsyncGenerator[tuple[int, list[Event]]]:
    """The events of jobs that were asked for in one go, with the number of the job, until each has had its Finish."""
    open_ = dict(enumerate(jobs))
    while open_:
        news = jobs[0].news
        await news.wait()
        news.clear()
        for number, job in list(open_.items()):
            if events := job.take():
                if isinstance(events[-1], Finish):
                    del open_[number]
                yield number, events


class Scheduler:
    """At most `slots` answers under way, and `queue` that wait. timeout_s: from asking to the last token."""

    def __init__(
        self,
        engine: BatchEngine,
        meter: SchedulerMetrics,
        *,
        slots: int = 16,
        queue: int = 64,
        timeout_s: float = 600.0,
        name: str = "",
    ):
        self.slots = max(1, min(slots, engine.slots))
        self._engine = engine
        self._metrics = meter
        self._queue = queue
        self._timeout_s = timeout_s
        self._waiting: FairQueue[Job] = FairQueue()
        self._running: list[Job] = []
        self._changed = threading.Condition()
        self._joining = 0
        self._closing = False
        self._refusing = False
        self._aborting = False
        self._usual_s = 1.0
        self._thread = threading.Thread(target=self._run, name=f"scheduler {name}", daemon=True)
        self._thread.start()

    @property
    def running(self) -> int:
        return len(self._running)

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    @property
    def retry_after_s(self) -> float:
        """How long it will take, by the last answers, until a place in the queue is free."""
        return min(60.0, max(1.0, self._usual_s * (1 + len(self._waiting)) / self.slots))

    def submit(
        self,
        asked: Sequence[tuple[Prompt, Sampling]],
        adapters: Adapters | None = None,
        client: str = "",
        deadline: float | None = None,
    ) -> list[Job]:
        """Ask for answers, all or none of them, from a running event loop. Raises Busy and Stopping.

        deadline: on the clock of time.monotonic; None for timeout_s from now
        """
        news = asyncio.Event()
        deadline = time.monotonic() + self._timeout_s if deadline is None else deadline
        with self._changed:
            if self._refusing:
                raise Stopping()
            if len(asked) > self.slots + self._queue:
                raise BadRequest(
                    f"{len(asked)} answers at once are more than this server holds ({self.slots + self._queue})",
                    param="n",
                )
            self._make_room(client, len(asked))
            jobs = [
                Job(prompt, sampling, adapters, client, deadline, news)
                for prompt, sampling in asked
            ]
            for job in jobs:
                self._waiting.put(client, job)
            self._changed.notify()
        return jobs

    def _make_room(self, client: str, count: int) -> None:
        """Where the queue is full, the client that fills it gives way to one that does not. Raises Busy."""
        busy = Busy("too many requests are waiting", self.retry_after_s)
        try:
            places = self.slots + self._queue - len(self._running) - self._joining
            displaced = self._waiting.make_room(client, count, places)
        except QueueFull:
            raise busy from None
        self._hand_out({job: [busy] for job in displaced})
        self._count(displaced, "refused")

    def cancel(self, jobs: Iterable[Job]) -> None:
        """Nobody waits for them any more. At the next pass their places are free; cancelling what has ended does nothing."""
        with self._changed:
            for job in jobs:
                job.gone = True
            self._changed.notify()

    def drain(self) -> None:
        """Take nothing new, send those away who wait, and finish what runs."""
        with self._changed:
            self._refusing = True
            refused = self._waiting.remove(lambda job: True)
            self._hand_out({job: [Stopping()] for job in refused})
            self._count(refused, "stopped")
            self._changed.notify()

    def abort(self) -> None:
        """End what still runs, and tell its readers that the server stops."""
        with self._changed:
            self._aborting = True
            for job in self._running:
                job.deadline = 0.0
            self._changed.notify()

    def close(self, grace_s: float = 0.0) -> None:
        """Drain for so long, cut off what still runs, and end the thread."""
        self.drain()
        end = time.monotonic() + grace_s
        with self._changed:
            self._changed.wait_for(lambda: not self._running, max(0.0, end - time.monotonic()))
            self._closing = True
        self.abort()
        self._thread.join()

    def _run(self) -> None:
        try:
            while (batch := self._next()) is not None:
                self._pass(batch)
        except Exception as error:
            # A mistake of ours: nobody may wait for a thread that is no more.
            log.exception("the scheduler ended")
            with self._changed:
                self._refusing = True
                left = [*self._running, *self._waiting.remove(lambda job: True)]
                self._running = []
                self._hand_out({job: [error] for job in left})
                self._changed.notify_all()

    def _next(self) -> list[Job] | None:
        """The answers to go on with, once there are any; None at the end."""
        while True:
            with self._changed:
                self._metrics.load(len(self._running), len(self._waiting))
                self._changed.wait_for(lambda: self._closing or self._running or len(self._waiting))
                leaving = self._leaving()
                room = self.slots - len(self._running)
                joining = [self._waiting.take() for _ in range(min(room, len(self._waiting)))]
                self._joining = len(joining)
                self._metrics.load(len(self._running) + len(joining), len(self._waiting))
            self._close(leaving)
            late: Refusal = Stopping() if self._aborting else DeadlineExceeded(self._timeout_s)
            reason: UnfinishedReason = "stopped" if self._aborting else "timeout"
            expired = [job for job in leaving if not job.gone]
            self._hand_out({job: [late] for job in expired})
            self._count(expired, reason)
            self._count([job for job in leaving if job.gone], "cancelled")
            joined = [job for job in joining if self._begin(job)]
            with self._changed:
                self._running += joined
                self._joining = 0
                if self._running:
                    return list(self._running)
                self._changed.notify_all()
                if self._closing:
                    return None

    def _leaving(self) -> list[Job]:
        """Take out those whose client is gone, and those whose time is up."""
        now = time.monotonic()
        over = [job for job in self._running if job.gone or now > job.deadline]
        self._running = [job for job in self._running if job not in over]
        over += self._waiting.remove(lambda job: job.gone or now > job.deadline)
        return over

    def _count(self, jobs: Sequence[Job], reason: UnfinishedReason) -> None:
        for _ in jobs:
            self._metrics.left(reason)

    def _close(self, jobs: list[Job]) -> None:
        for job in jobs:
            if job.answer is not None:
                job.answer.close()

    def _begin(self, job: Job) -> bool:
        try:
            job.answer = self._engine.begin(job.prompt, job.sampling, job.adapters)
        except Exception as error:
            self._hand_out({job: [error]})
            self._count([job], "refused" if isinstance(error, LlmchatError) else "failed")
            return False
        return True

    def _pass(self, batch: list[Job]) -> None:
        """One pass through the model. What it raises ends every answer of the pass: nobody knows which one it was."""
        started = time.perf_counter()
        try:
            events = self._engine.step([job.answer for job in batch if job.answer is not None])
        except Exception as error:
            self._close(batch)
            self._leave(batch)
            self._hand_out({job: [_own(error)] for job in batch})
            self._count(batch, "failed")
            return
        told = {job: list(said) for job, said in zip(batch, events, strict=True) if said}
        # Whoever has heard the end finds the place free.
        self._leave(
            [job for job, said in told.items() if any(isinstance(event, Finish) for event in said)]
        )
        self._hand_out(self._due(told))
        self._measure(told, time.perf_counter() - started)

    def _due(self, told: dict[Job, list[Event]]) -> dict[Job, list[Event]]:
        """What is to be told now: a first token and an end always, the rest when enough time has passed."""
        now, due = time.monotonic(), {}
        for job, said in told.items():
            job.held += said
            if len(told) <= FEW or now - job.told_at >= PACE_S or isinstance(said[-1], Finish):
                due[job], job.held, job.told_at = job.held, [], now
        return due

    def _leave(self, jobs: list[Job]) -> None:
        if jobs:
            with self._changed:
                self._running = [job for job in self._running if job not in jobs]
                self._changed.notify_all()

    def _measure(self, told: dict[Job, list[Event]], seconds: float) -> None:
        speaking = [
            job for job, said in told.items() if any(isinstance(event, Chunk) for event in said)
        ]
        for job in speaking:
            if not job.begun:
                job.begun = True
                self._metrics.first(time.monotonic() - job.asked)
        self._metrics.passed(seconds, len(speaking))
        for finish in (
            event for said in told.values() for event in said if isinstance(event, Finish)
        ):
            self._metrics.ended(finish)
            self._usual_s += 0.2 * (finish.prefill_s + finish.decode_s - self._usual_s)

    def _hand_out(self, told: Mapping[Job, Sequence[Event | Exception]]) -> None:
        """One call into each event loop, whatever there is to tell."""
        for loop in {job.loop for job in told}:
            mine = [(job, [*job.held, *events]) for job, events in told.items() if job.loop is loop]
            _call(loop, lambda mine=mine: [job.deliver(events) for job, events in mine])  # type: ignore[misc]


def _call(loop: asyncio.AbstractEventLoop, function: Callable[[], object]) -> None:
    """Run a function in a loop, unless that has ended: then nobody is left to be told."""
    try:
        loop.call_soon_threadsafe(function)
    except RuntimeError:
        if not loop.is_closed():
            raise


def _own(error: Exception) -> Exception:
    """The same error for one of several readers: a traceback is not shared between threads. Unknown ones stay as they are."""
    return type(error)(error.message, error.hint) if isinstance(error, LlmchatError) else error
