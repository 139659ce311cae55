"""Continuous batching: one thread owns an engine and makes all answers at once; they join and leave between two passes through the model.

Nothing here knows of HTTP, models or prompts. Events go to the event loop once a pass, not once a token of each answer.
"""

import asyncio
import logging
import threading
import time
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping, Sequence
from typing import Literal, Protocol

from llmchat.engines import Adapters, Answer, BatchEngine, Chunk, Finish, Sampling
from llmchat.errors import LlmchatError
from llmchat.prompt import Prompt
from llmchat.server.errors import BadRequest, Busy, Refusal, Stopping, TooLate
from llmchat.server.fair_queue import FairQueue, Full

log = logging.getLogger("llmchat.server")
Event = Chunk | Finish
Left = Literal["cancelled", "timeout", "stopped", "refused", "failed"]
# Where more answers than FEW run at once, each is told its news so often: sending every token of every answer by itself takes a fifth of the
# machine from the model, and nobody sees the difference.
FEW, PACE_S = 4, 0.03


class Meter(Protocol):
    """Who is told what happens. Called from the scheduler's thread."""

    def load(self, running: int, waiting: int) -> None: ...

    def first(self, seconds: float) -> None: ...

    def passed(self, seconds: float, tokens: int) -> None: ...

    def ended(self, finish: Finish) -> None: ...

    def left(self, reason: Left) -> None:
        """An answer that did not come to its end."""
        ...


class Ticket:
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


async def together(tickets: Sequence[Ticket]) -> AsyncGenerator[tuple[int, list[Event]]]:
    """The events of tickets that were asked for in one go, with the number of the ticket, until each has had its Finish."""
    open_ = dict(enumerate(tickets))
    while open_:
        news = tickets[0].news
        await news.wait()
        news.clear()
        for number, ticket in list(open_.items()):
            if events := ticket.take():
                if isinstance(events[-1], Finish):
                    del open_[number]
                yield number, events


class Scheduler:
    """At most `slots` answers under way, and `queue` that wait. timeout_s: from asking to the last token."""

    def __init__(
        self,
        engine: BatchEngine,
        meter: Meter,
        *,
        slots: int = 16,
        queue: int = 64,
        timeout_s: float = 600.0,
        name: str = "",
    ):
        self.slots = max(1, min(slots, engine.slots))
        self._engine = engine
        self._meter = meter
        self._queue = queue
        self._timeout_s = timeout_s
        self._waiting: FairQueue[Ticket] = FairQueue()
        self._running: list[Ticket] = []
        self._changed = threading.Condition()
        self._joining = 0
        self._closing = False
        self._refusing = False
        self._cutting = False
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
    ) -> list[Ticket]:
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
            tickets = [
                Ticket(prompt, sampling, adapters, client, deadline, news)
                for prompt, sampling in asked
            ]
            for ticket in tickets:
                self._waiting.put(client, ticket)
            self._changed.notify()
        return tickets

    def _make_room(self, client: str, count: int) -> None:
        """Where the queue is full, the client that fills it gives way to one that does not. Raises Busy."""
        busy = Busy("too many requests are waiting", self.retry_after_s)
        try:
            places = self.slots + self._queue - len(self._running) - self._joining
            displaced = self._waiting.make_room(client, count, places)
        except Full:
            raise busy from None
        self._hand_out({ticket: [busy] for ticket in displaced})
        self._count(displaced, "refused")

    def cancel(self, tickets: Iterable[Ticket]) -> None:
        """Nobody waits for them any more. At the next pass their places are free; cancelling what has ended does nothing."""
        with self._changed:
            for ticket in tickets:
                ticket.gone = True
            self._changed.notify()

    def drain(self) -> None:
        """Take nothing new, send those away who wait, and finish what runs."""
        with self._changed:
            self._refusing = True
            refused = self._waiting.remove(lambda ticket: True)
            self._hand_out({ticket: [Stopping()] for ticket in refused})
            self._count(refused, "stopped")
            self._changed.notify()

    def cut(self) -> None:
        """End what still runs, and tell its readers that the server stops."""
        with self._changed:
            self._cutting = True
            for ticket in self._running:
                ticket.deadline = 0.0
            self._changed.notify()

    def close(self, grace_s: float = 0.0) -> None:
        """Drain for so long, cut off what still runs, and end the thread."""
        self.drain()
        end = time.monotonic() + grace_s
        with self._changed:
            self._changed.wait_for(lambda: not self._running, max(0.0, end - time.monotonic()))
            self._closing = True
        self.cut()
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
                left = [*self._running, *self._waiting.remove(lambda ticket: True)]
                self._running = []
                self._hand_out({ticket: [error] for ticket in left})
                self._changed.notify_all()

    def _next(self) -> list[Ticket] | None:
        """The answers to go on with, once there are any; None at the end."""
        while True:
            with self._changed:
                self._meter.load(len(self._running), len(self._waiting))
                self._changed.wait_for(lambda: self._closing or self._running or len(self._waiting))
                leaving = self._leaving()
                room = self.slots - len(self._running)
                joining = [self._waiting.take() for _ in range(min(room, len(self._waiting)))]
                self._joining = len(joining)
                self._meter.load(len(self._running) + len(joining), len(self._waiting))
            self._close(leaving)
            late: Refusal = Stopping() if self._cutting else TooLate(self._timeout_s)
            reason: Left = "stopped" if self._cutting else "timeout"
            expired = [ticket for ticket in leaving if not ticket.gone]
            self._hand_out({ticket: [late] for ticket in expired})
            self._count(expired, reason)
            self._count([ticket for ticket in leaving if ticket.gone], "cancelled")
            joined = [ticket for ticket in joining if self._begin(ticket)]
            with self._changed:
                self._running += joined
                self._joining = 0
                if self._running:
                    return list(self._running)
                self._changed.notify_all()
                if self._closing:
                    return None

    def _leaving(self) -> list[Ticket]:
        """Take out those whose client is gone, and those whose time is up."""
        now = time.monotonic()
        over = [ticket for ticket in self._running if ticket.gone or now > ticket.deadline]
        self._running = [ticket for ticket in self._running if ticket not in over]
        over += self._waiting.remove(lambda ticket: ticket.gone or now > ticket.deadline)
        return over

    def _count(self, tickets: Sequence[Ticket], reason: Left) -> None:
        for _ in tickets:
            self._meter.left(reason)

    def _close(self, tickets: list[Ticket]) -> None:
        for ticket in tickets:
            if ticket.answer is not None:
                ticket.answer.close()

    def _begin(self, ticket: Ticket) -> bool:
        try:
            ticket.answer = self._engine.begin(ticket.prompt, ticket.sampling, ticket.adapters)
        except Exception as error:
            self._hand_out({ticket: [error]})
            self._count([ticket], "refused" if isinstance(error, LlmchatError) else "failed")
            return False
        return True

    def _pass(self, batch: list[Ticket]) -> None:
        """One pass through the model. What it raises ends every answer of the pass: nobody knows which one it was."""
        started = time.perf_counter()
        try:
            events = self._engine.step(
                [ticket.answer for ticket in batch if ticket.answer is not None]
            )
        except Exception as error:
            self._close(batch)
            self._leave(batch)
            self._hand_out({ticket: [_own(error)] for ticket in batch})
            self._count(batch, "failed")
            return
        told = {ticket: list(said) for ticket, said in zip(batch, events, strict=True) if said}
        # Whoever has heard the end finds the place free.
        self._leave(
            [
                ticket
                for ticket, said in told.items()
                if any(isinstance(event, Finish) for event in said)
            ]
        )
        self._hand_out(self._due(told))
        self._measure(told, time.perf_counter() - started)

    def _due(self, told: dict[Ticket, list[Event]]) -> dict[Ticket, list[Event]]:
        """What is to be told now: a first token and an end always, the rest when enough time has passed."""
        now, due = time.monotonic(), {}
        for ticket, said in told.items():
            ticket.held += said
            if len(told) <= FEW or now - ticket.told_at >= PACE_S or isinstance(said[-1], Finish):
                due[ticket], ticket.held, ticket.told_at = ticket.held, [], now
        return due

    def _leave(self, tickets: list[Ticket]) -> None:
        if tickets:
            with self._changed:
                self._running = [ticket for ticket in self._running if ticket not in tickets]
                self._changed.notify_all()

    def _measure(self, told: dict[Ticket, list[Event]], seconds: float) -> None:
        speaking = [
            ticket
            for ticket, said in told.items()
            if any(isinstance(event, Chunk) for event in said)
        ]
        for ticket in speaking:
            if not ticket.begun:
                ticket.begun = True
                self._meter.first(time.monotonic() - ticket.asked)
        self._meter.passed(seconds, len(speaking))
        for finish in (
            event for said in told.values() for event in said if isinstance(event, Finish)
        ):
            self._meter.ended(finish)
            self._usual_s += 0.2 * (finish.prefill_s + finish.decode_s - self._usual_s)

    def _hand_out(self, told: Mapping[Ticket, Sequence[Event | Exception]]) -> None:
        """One call into each event loop, whatever there is to tell."""
        for loop in {ticket.loop for ticket in told}:
            mine = [
                (ticket, [*ticket.held, *events])
                for ticket, events in told.items()
                if ticket.loop is loop
            ]
            _call(loop, lambda mine=mine: [ticket.deliver(events) for ticket, events in mine])  # type: ignore[misc]


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
