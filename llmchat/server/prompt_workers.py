"""Threads for work on prompts (parsing, rendering, tokenising): few at once, fair to clients.

This work holds the interpreter's lock, so too much of it at once would stall every stream.
"""

import asyncio
import math
import time
from collections.abc import Callable
from typing import TypeVar

from llmchat.server.errors import Busy, DeadlineExceeded
from llmchat.server.fair_queue import FairQueue, QueueFull

Result = TypeVar("Result")
MAX_WORKERS, MAX_WAITING = 2, 256


class PromptWorkers:
    """At most `workers` calls at once, and `capacity` that wait; when the queue is full, the client
    with the most waiting calls loses one."""

    def __init__(self, workers: int = MAX_WORKERS, capacity: int = MAX_WAITING):
        self._workers = self._idle = workers
        self._capacity = capacity
        self._waiting: FairQueue[asyncio.Future[None]] = FairQueue()

    @property
    def busy(self) -> bool:
        return self._idle < self._workers or bool(len(self._waiting))

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    async def run(self, client: str, deadline: float, work: Callable[[], Result]) -> Result:
        """Call `work` in a thread. Raises Busy, DeadlineExceeded, and what `work` raises.

        deadline: for the work to start, on the clock of time.monotonic
        """
        await self._acquire(client, deadline)
        task = asyncio.ensure_future(asyncio.to_thread(work))
        # A thread cannot be cancelled: if the client disconnects, its worker stays busy until the
        # thread ends.
        task.add_done_callback(self._release)
        return await asyncio.shield(task)

    async def _acquire(self, client: str, deadline: float) -> None:
        if self._idle:
            self._idle -= 1
            return
        turn = self._enqueue(client)
        wait_s = max(0.0, deadline - time.monotonic())
        try:
            async with asyncio.timeout(None if math.isinf(wait_s) else wait_s):
                await turn
        except BaseException as error:
            # The turn may have come in the same moment.
            if turn.done() and not turn.cancelled() and turn.exception() is None:
                self._start_next()
            self._waiting.remove(lambda other: other is turn)
            if isinstance(error, TimeoutError):
                raise DeadlineExceeded(wait_s) from None
            raise

    def _enqueue(self, client: str) -> "asyncio.Future[None]":
        busy = Busy("too many prompts are waiting to be processed", 2)
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        try:
            displaced = self._waiting.make_room(client, 1, self._capacity)
        except QueueFull:
            raise busy from None
        for other in displaced:
            if not other.done():
                other.set_exception(busy)
        self._waiting.put(client, turn)
        return turn

    def _release(self, task: "asyncio.Future[Result]") -> None:
        if not task.cancelled():
            # Marks the exception as retrieved, even if the client is gone.
            task.exception()
        self._start_next()

    def _start_next(self) -> None:
        """Give the worker to the next call that still waits; without one, it is idle."""
        while len(self._waiting):
            turn = self._waiting.take()
            if not turn.done():
                turn.set_result(None)
                return
        self._idle += 1
