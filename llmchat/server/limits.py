"""The rate limit: how many requests a minute each client may send."""

import time
from collections.abc import Callable

from llmchat.server.errors import Busy

# With this many clients, those whose buckets are full again are forgotten.
_MAX_CLIENTS = 4096


class RateLimit:
    """A token bucket for each client, of `per_minute` requests, which may come in one burst.

    0 means no limit.
    """

    def __init__(self, per_minute: int, clock: Callable[[], float] = time.monotonic):
        self._capacity = float(per_minute)
        self._clock = clock
        self._buckets: dict[str, tuple[float, float]] = {}

    def __len__(self) -> int:
        """The number of clients that are remembered."""
        return len(self._buckets)

    def spend(self, client: str) -> None:
        """Count one request. Raises Busy if the client sent too many."""
        if not self._capacity:
            return
        now = self._clock()
        tokens = self._refilled(*self._buckets.get(client, (self._capacity, now)), now)
        if tokens < 1:
            wait_s = (1 - tokens) * 60 / self._capacity
            raise Busy(f"more than {self._capacity:g} requests a minute", wait_s)
        if client not in self._buckets and len(self._buckets) >= _MAX_CLIENTS:
            self._forget_full(now)
        self._buckets[client] = (tokens - 1, now)

    def _refilled(self, tokens: float, since: float, now: float) -> float:
        return min(self._capacity, tokens + (now - since) * self._capacity / 60)

    def _forget_full(self, now: float) -> None:
        self._buckets = {
            client: bucket
            for client, bucket in self._buckets.items()
            if self._refilled(*bucket, now) < self._capacity
        }
