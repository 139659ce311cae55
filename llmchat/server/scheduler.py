"""Continuous batching: one thread owns an engine and runs all answers together. Answers join and
leave between two steps of the model.

The scheduler knows nothing about HTTP, model names or chats.
"""

import asyncio
import logging
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal, Protocol

from msgspec.structs import replace

from llmchat.engines import Adapters, Chunk, Finish, Sampling
from llmchat.engines.capabilities import BatchEngine
from llmchat.errors import LlmchatError
from llmchat.prompt import Prompt
from llmchat.server.errors import BadRequest, Busy, DeadlineExceeded, Stopping
from llmchat.server.fair_queue import FairQueue, QueueFull
from llmchat.server.jobs import Event, Job, send

log = logging.getLogger("llmchat.server")
UnfinishedReason = Literal["cancelled", "timeout", "stopped", "refused", "failed"]
# With more than MAX_UNPACED answers, the events of each are sent at this interval: sending every
# token by itself costs the model a fifth of the machine, and no reader notices the difference.
MAX_UNPACED, SEND_INTERVAL_S = 4, 0.03


class SchedulerMetrics(Protocol):
    """Called from the scheduler's thread."""

    def set_load(self, running: int, waiting: int) -> None: ...

    def first_text(self, seconds: float) -> None: ...

    def step_done(self, answers: int) -> None:
        """answers: those that got text in this step."""
        ...

    def finished(self, finish: Finish) -> None: ...

    def unfinished(self, reason: UnfinishedReason) -> None: ...


class Scheduler:
    """At most `slots` running answers, and `queue` waiting ones. timeout_s: for a whole answer, if
    its job has no deadline."""

    def __init__(
        self,
        engine: BatchEngine,
        metrics: SchedulerMetrics,
        *,
        slots: int = 16,
        queue: int = 64,
        timeout_s: float = 600.0,
        send_interval_s: float = SEND_INTERVAL_S,
        name: str = "",
    ):
        self.slots = max(1, min(slots, engine.slots))
        self._engine = engine
        self._metrics = metrics
        self._queue = queue
        self._timeout_s = timeout_s
        self._send_interval_s = send_interval_s
        self._waiting: FairQueue[Job] = FairQueue()
        self._running: list[Job] = []
        # Jobs that were taken from the queue, and whose prompts are being encoded.
        self._starting = 0
        self._changed = threading.Condition()
        self._closing = False
        self._refusing = False
        self._aborting = False
        self._average_s = 1.0
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
        """The estimated time until the queue has room, from the average of recent answers."""
        return min(60.0, max(1.0, self._average_s * (1 + len(self._waiting)) / self.slots))

    def submit(
        self,
        prompts: Sequence[tuple[Prompt, Sampling]],
        adapters: Adapters | None = None,
        client: str = "",
        deadline: float | None = None,
    ) -> list[Job]:
        """Submit answers, all or none of them. Call it from a running event loop.

        deadline: on the clock of time.monotonic; None for timeout_s from now.
        Raises BadRequest, Busy and Stopping.
        """
        news = asyncio.Event()
        deadline = time.monotonic() + self._timeout_s if deadline is None else deadline
        with self._changed:
            if self._refusing:
                raise Stopping()
            capacity = self.slots + self._queue
            if len(prompts) > capacity:
                message = f"{len(prompts)} answers exceed this server's capacity of {capacity}"
                raise BadRequest(message, param="n")
            self._make_room(client, len(prompts))
            jobs = [
                Job(prompt, sampling, adapters, client, deadline, news)
                for prompt, sampling in prompts
            ]
            for job in jobs:
                self._waiting.put(client, job)
            self._changed.notify()
        return jobs

    def _make_room(self, client: str, count: int) -> None:
        """If the queue is full, displace jobs of the client that fills it. Raises Busy."""
        busy = Busy("too many requests are waiting", self.retry_after_s)
        room = self.slots + self._queue - len(self._running) - self._starting
        try:
            displaced = self._waiting.make_room(client, count, room)
        except QueueFull:
            raise busy from None
        self._fail(displaced, busy, "refused")

    def cancel(self, jobs: Iterable[Job]) -> None:
        """End jobs without a reader; their slots are free after the current step.

        Has no effect on finished jobs.
        """
        with self._changed:
            for job in jobs:
                job.cancelled = True
            self._changed.notify()

    def drain(self) -> None:
        """Accept no more jobs, reject the waiting ones, and finish the running ones."""
        with self._changed:
            self._refusing = True
            self._fail(self._waiting.remove(lambda job: True), Stopping(), "stopped")
            self._changed.notify()

    def abort(self) -> None:
        """End the running jobs with the error Stopping."""
        with self._changed:
            self._aborting = True
            for job in self._running:
                job.deadline = 0.0
            self._changed.notify()

    def close(self, grace_s: float = 0.0) -> None:
        """Drain for at most so long, abort what still runs, and end the thread."""
        self.drain()
        with self._changed:
            self._changed.wait_for(lambda: not self._running, grace_s)
            self._closing = True
        self.abort()
        self._thread.join()

    def _run(self) -> None:
        try:
            while (batch := self._next_batch()) is not None:
                self._step(batch)
        except Exception as error:
            # A bug: fail all jobs, because their readers would wait forever.
            log.exception("the scheduler ended")
            with self._changed:
                self._refusing = True
                lost = [*self._running, *self._waiting.remove(lambda job: True)]
                self._running = []
                send({job: [*job.take_unsent(), error] for job in lost})
                self._changed.notify_all()

    def _next_batch(self) -> list[Job] | None:
        """Wait for jobs, and return those for the next step; None when the scheduler closes."""
        while True:
            with self._changed:
                self._metrics.set_load(len(self._running), len(self._waiting))
                self._changed.wait_for(lambda: self._closing or self._running or len(self._waiting))
                ended = self._remove_ended()
                free = self.slots - len(self._running)
                starting = [self._waiting.take() for _ in range(min(free, len(self._waiting)))]
                self._starting = len(starting)
                running = len(self._running) + len(starting)
                self._metrics.set_load(running, len(self._waiting))
            self._end(ended)
            started = [job for job in starting if self._start(job)]
            with self._changed:
                self._running += started
                self._starting = 0
                if self._running:
                    return list(self._running)
                self._changed.notify_all()
                if self._closing:
                    return None

    def _remove_ended(self) -> list[Job]:
        """Take out the jobs that were cancelled or are past their deadline."""
        now = time.monotonic()

        def has_ended(job: Job) -> bool:
            return job.cancelled or now > job.deadline

        ended = [job for job in self._running if has_ended(job)]
        self._running = [job for job in self._running if job not in ended]
        return ended + self._waiting.remove(has_ended)

    def _end(self, jobs: Sequence[Job]) -> None:
        self._close_answers(jobs)
        late = [job for job in jobs if not job.cancelled]
        if self._aborting:
            self._fail(late, Stopping(), "stopped")
        else:
            self._fail(late, DeadlineExceeded(self._timeout_s), "timeout")
        for _ in range(len(jobs) - len(late)):
            self._metrics.unfinished("cancelled")

    def _start(self, job: Job) -> bool:
        try:
            job.answer = self._engine.begin(job.prompt, job.sampling, job.adapters)
        except Exception as error:
            refused = isinstance(error, LlmchatError)
            self._fail([job], error, "refused" if refused else "failed")
            return False
        return True

    def _step(self, batch: list[Job]) -> None:
        """Run the model once. An error ends all answers of the step: no one knows which one caused
        it."""
        try:
            events = self._engine.step([job.answer for job in batch if job.answer is not None])
        except Exception as error:
            self._close_answers(batch)
            self._leave(batch)
            self._fail(batch, error, "failed")
            return
        new = {
            job: _with_cached(job, some) for job, some in zip(batch, events, strict=True) if some
        }
        # A client that reads the end of its answer finds the slot free.
        self._leave([job for job, some in new.items() if _finish_of(some)])
        self._send_due(new)
        self._measure(new)

    def _send_due(self, new: Mapping[Job, Sequence[Event]]) -> None:
        interval_s = 0.0 if len(new) <= MAX_UNPACED else self._send_interval_s
        due = {job: job.collect(events, interval_s) for job, events in new.items()}
        send({job: events for job, events in due.items() if events})

    def _leave(self, jobs: Sequence[Job]) -> None:
        if jobs:
            with self._changed:
                self._running = [job for job in self._running if job not in jobs]
                self._changed.notify_all()

    def _fail(self, jobs: Sequence[Job], error: Exception, reason: UnfinishedReason) -> None:
        """End jobs with an error, after the text that they already have."""
        send({job: [*job.take_unsent(), _copy(error)] for job in jobs})
        for _ in jobs:
            self._metrics.unfinished(reason)

    def _close_answers(self, jobs: Sequence[Job]) -> None:
        for job in jobs:
            if job.answer is not None:
                job.answer.close()

    def _measure(self, new: Mapping[Job, Sequence[Event]]) -> None:
        with_text = [job for job, events in new.items() if _has_text(events)]
        for job in with_text:
            if not job.has_text:
                job.has_text = True
                self._metrics.first_text(time.monotonic() - job.submitted)
        self._metrics.step_done(len(with_text))
        for events in new.values():
            if finish := _finish_of(events):
                self._metrics.finished(finish)
                self._average_s += 0.2 * (finish.prefill_s + finish.decode_s - self._average_s)


def _with_cached(job: Job, events: Sequence[Event]) -> list[Event]:
    """The events, the first Chunk of the answer with what was cached of its prompt."""
    first = events[0]
    if job.has_text or job.answer is None or not isinstance(first, Chunk):
        return list(events)
    return [replace(first, cached_tokens=job.answer.cached_tokens), *events[1:]]


def _has_text(events: Sequence[Event]) -> bool:
    return any(isinstance(event, Chunk) for event in events)


def _finish_of(events: Sequence[Event]) -> Finish | None:
    return next((event for event in events if isinstance(event, Finish)), None)


def _copy(error: Exception) -> Exception:
    """The same error for one of several readers, because threads must not share a traceback.

    Unexpected errors stay as they are.
    """
    if type(error).__init__ is LlmchatError.__init__ and isinstance(error, LlmchatError):
        return type(error)(error.message, error.hint)
    return error
