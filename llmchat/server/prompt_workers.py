"""Work on prompts (rendering and tokenising): a little at a time, in threads, clients by turns.

It takes the interpreter away from the thread that makes the answers, so that many large prompts at once would hold up every stream.
"""

import asyncio
import time
from collections.abc import Callable
from typing import TypeVar

from llmchat.server.errors import Busy, DeadlineExceeded
from llmchat.server.fair_queue import FairQueue, QueueFull

Made = TypeVar("Made")
WIDTH, PLACES = 2, 256


class PromptWorkers:
    """At most `width` pieces of work at once; at most `places` wait, and of those the client with the most gives way."""

    def __init__(self, width: int = WIDTH, places: int = PLACES):
        self._width = self._free = width
        self._places = places
        self._waiting: FairQueue[asyncio.Future[None]] = FairQueue()

    @property
    def busy(self) -> bool:
        return self._free < self._width or bool(len(self._waiting))

    async def run(self, client: str, deadline: float, work: Callable[[], Made]) -> Made:
        """What `work` returns, made in a thread. deadline: on the clock of time.monotonic. Raises Busy, DeadlineExceeded, and what it raises."""
        await self._enter(client, deadline)
        task = asyncio.ensure_future(asyncio.to_thread(work))
        # A client that goes away does not end the thread: its place is free when that has ended.
        task.add_done_callback(self._leave)
        return await asyncio.shield(task)

    async def _enter(self, client: str, deadline: float) -> None:
        if self._free:
            self._free -= 1
            return
        turn = self._queued(client)
        waited_s = max(0.0, deadline - time.monotonic())
        try:
            async with asyncio.timeout(None if waited_s == float("inf") else waited_s):
                await turn
        except BaseException as error:
            if turn.done() and not turn.cancelled() and turn.exception() is None:
                self._next()
            self._waiting.remove(lambda other: other is turn)
            if isinstance(error, TimeoutError):
                raise DeadlineExceeded(waited_s) from None
            raise

    def _queued(self, client: str) -> "asyncio.Future[None]":
        busy = Busy("too many prompts are waiting to be read", 2)
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        try:
            displaced = self._waiting.make_room(client, 1, self._places)
        except QueueFull:
            raise busy from None
        for other in displaced:
            if not other.done():
                other.set_exception(busy)
        self._waiting.put(client, turn)
        return turn

    def _leave(self, task: "asyncio.Future[Made]") -> None:
        if not task.cancelled():
            task.exception()
        self._next()

    def _next(self) -> None:
        """Let the next one in; a place that nobody waits for is free."""
        while len(self._waiting):
            turn = self._waiting.take()
            if not turn.done():
                turn.set_result(None)
                return
        self._free += 1
