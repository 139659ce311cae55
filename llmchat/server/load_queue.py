"""The requests that wait for a model to be loaded, in the order in which models are loaded."""

import asyncio
from collections.abc import Iterator
from typing import Generic, TypeVar

from llmchat.server.errors import Busy
from llmchat.server.fair_queue import FairQueue, QueueFull

Granted = TypeVar("Granted")


class Waiter(Generic[Granted]):
    """A request that waits for the model with this key; `granted` resolves once it is loaded."""

    def __init__(self, key: str, client: str):
        self.key = key
        self.client = client
        self.granted: asyncio.Future[Granted] = asyncio.get_running_loop().create_future()


class LoadQueue(Generic[Granted]):
    """At most `capacity` waiters. When the queue is full, the client with the most waiters loses
    one to a client with fewer."""

    def __init__(self, capacity: int):
        self._capacity = capacity
        self._queue: FairQueue[Waiter[Granted]] = FairQueue()
        # The number of waiters for each model; the order of the keys is the order of loading.
        self._counts: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._queue)

    def put(self, waiter: Waiter[Granted]) -> None:
        """Raises Busy if the queue is full."""
        busy = Busy("too many requests are waiting for a model to load", 5)
        try:
            displaced = self._queue.make_room(waiter.client, 1, self._capacity)
        except QueueFull:
            raise busy from None
        for other in displaced:
            self._uncount(other)
            if not other.granted.done():
                other.granted.set_exception(busy)
        self._queue.put(waiter.client, waiter)
        self._counts[waiter.key] = self._counts.get(waiter.key, 0) + 1

    def remove(self, waiter: Waiter[Granted]) -> None:
        if self._queue.remove(lambda other: other is waiter):
            self._uncount(waiter)

    def take_all(self, key: str) -> Iterator[Waiter[Granted]]:
        """Remove the waiters for a model; yields those whose client has not disconnected."""
        for waiter in self._queue.remove(lambda other: other.key == key):
            self._uncount(waiter)
            if not waiter.granted.done():
                yield waiter

    def next_key(self) -> str | None:
        """The model to load next: the first that a request waits for."""
        return next(iter(self._counts), None)

    def has_waiters(self, key: str) -> bool:
        return key in self._counts

    def fail(self, error: Exception, key: str | None = None) -> None:
        """Refuse all waiters, or those for one model."""
        for failed in [key] if key else list(self._counts):
            for waiter in self.take_all(failed):
                waiter.granted.set_exception(error)

    def _uncount(self, waiter: Waiter[Granted]) -> None:
        self._counts[waiter.key] -= 1
        if not self._counts[waiter.key]:
            del self._counts[waiter.key]
