"""Jobs of the scheduler: one for each answer. They carry events from its thread to event loops."""

import asyncio
import math
import time
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping, Sequence

from llmchat.engines import Adapters, Chunk, Finish, Sampling
from llmchat.engines.capabilities import Answer
from llmchat.prompt import Prompt

Event = Chunk | Finish


class Job:
    """One answer that a request asked for. Its events are read in the loop it was created in;
    `news` is set when there are new ones.

    A slow reader delays no one: unread events wait in the job, at most the text of one answer.
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
        self.submitted = time.monotonic()
        self.answer: Answer | None = None
        self.has_text = False
        self.cancelled = False
        self.loop = asyncio.get_running_loop()
        self._unsent: list[Event] = []
        self._sent_at = -math.inf
        self._inbox: list[Event | Exception] = []

    def collect(self, events: Iterable[Event], interval_s: float) -> list[Event]:
        """Add new events, and return those to send now: all of them at the end, or when interval_s
        has passed since the last time; otherwise none."""
        self._unsent += events
        now = time.monotonic()
        due = now - self._sent_at >= interval_s
        if not due and not isinstance(self._unsent[-1], Finish):
            return []
        self._sent_at = now
        return self.take_unsent()

    def take_unsent(self) -> list[Event]:
        events, self._unsent = self._unsent, []
        return events

    def deliver(self, events: Iterable[Event | Exception]) -> None:
        """Called in the loop's thread."""
        self._inbox.extend(events)
        self.news.set()

    def read(self) -> list[Event]:
        """All events since the last call; the events before an error come first.

        Raises the engine's or the scheduler's error.
        """
        events: list[Event] = []
        for index, event in enumerate(self._inbox):
            if isinstance(event, Exception):
                if events:
                    self._inbox = self._inbox[index:]
                    self.news.set()
                    return events
                self._inbox = []
                raise event
            events.append(event)
        self._inbox = []
        return events


async def merged_events(jobs: Sequence[Job]) -> AsyncGenerator[tuple[int, list[Event]]]:
    """The events of jobs that were submitted together, each with the index of its job, until all
    have finished."""
    unfinished = dict(enumerate(jobs))
    while unfinished:
        news = jobs[0].news
        await news.wait()
        news.clear()
        for index, job in list(unfinished.items()):
            if events := job.read():
                if isinstance(events[-1], Finish):
                    del unfinished[index]
                yield index, events


def send(events: Mapping[Job, Sequence[Event | Exception]]) -> None:
    """Deliver events from the scheduler's thread, with one call into each event loop."""
    for loop in {job.loop for job in events}:
        batch = [(job, list(new)) for job, new in events.items() if job.loop is loop]
        _call_in(loop, lambda batch=batch: [job.deliver(new) for job, new in batch])  # type: ignore[misc]


def _call_in(loop: asyncio.AbstractEventLoop, function: Callable[[], object]) -> None:
    """Call a function in a loop, unless the loop has ended: then there is no reader."""
    try:
        loop.call_soon_threadsafe(function)
    except RuntimeError:
        if not loop.is_closed():
            raise
