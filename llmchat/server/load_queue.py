"""Requests that wait for a model to come into memory, in the order in which their models are loaded."""

import asyncio
from collections.abc import Iterator
from typing import Generic, TypeVar

from llmchat.server.errors import Busy
from llmchat.server.fair_queue import FairQueue, QueueFull

Granted = TypeVar("Granted")


class Waiter(Generic[Granted]):
    """A request that waits for the model with this key. `granted` is what it gets once the model is there."""

    def __init__(self, key: str, client: str):
        self.key = key
        self.client = client
        self.granted: asyncio.Future[Granted] = asyncio.get_running_loop().create_future()


class LoadQueue(Generic[Granted]):
    """At most `places` waiters. When it is full, the client with the most waiters gives way to one with fewer."""

    def __init__(self, places: int):
        self._places = places
        self._queue: FairQueue[Waiter[Granted]] = FairQueue()
        self._keys: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._queue)

    def join(self, waiter: Waiter[Granted]) -> None:
        """Raises Busy where no place is left."""
        busy = Busy("too many requests are waiting for a model to be loaded", 5)
        try:
            displaced = self._queue.make_room(waiter.client, 1, self._places)
        except QueueFull:
            raise busy from None
        for other in displaced:
            self._forget(other)
            if not other.granted.done():
                other.granted.set_exception(busy)
        self._queue.put(waiter.client, waiter)
        self._keys[waiter.key] = self._keys.get(waiter.key, 0) + 1

    def leave(self, waiter: Waiter[Granted]) -> None:
        if self._queue.remove(lambda other: other is waiter):
            self._forget(waiter)

    def call(self, key: str) -> Iterator[Waiter[Granted]]:
        """Take out those who wait for a model; the ones whose client has gone are passed over."""
        for waiter in self._queue.remove(lambda other: other.key == key):
            self._forget(waiter)
            if not waiter.granted.done():
                yield waiter

    def first(self) -> str | None:
        """The model that was waited for first."""
        return next(iter(self._keys), None)

    def wants(self, key: str) -> bool:
        return key in self._keys

    def fail(self, error: Exception, key: str | None = None) -> None:
        """Refuse everybody, or those who wait for one model."""
        for wanted in [key] if key else list(self._keys):
            for waiter in self.call(wanted):
                waiter.granted.set_exception(error)

    def _forget(self, waiter: Waiter[Granted]) -> None:
        self._keys[waiter.key] -= 1
        if not self._keys[waiter.key]:
            del self._keys[waiter.key]
