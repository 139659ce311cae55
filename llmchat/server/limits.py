"""How much one client may ask for, and how long a request may take to arrive."""

import time
from collections.abc import Callable

from llmchat.server.errors import Busy

# Clients that are remembered; beyond that the ones whose buckets are full again are forgotten.
_REMEMBERED = 4096


class RateLimit:
    """A token bucket a client: `per_minute` requests, all of which may come at once. 0 is no limit."""

    def __init__(self, per_minute: int, clock: Callable[[], float] = time.monotonic):
        self._most = float(per_minute)
        self._clock = clock
        self._buckets: dict[str, tuple[float, float]] = {}

    def spend(self, client: str) -> None:
        """Raises Busy when the client has asked too often."""
        if not self._most:
            return
        now = self._clock()
        left, since = self._buckets.get(client, (self._most, now))
        left = min(self._most, left + (now - since) * self._most / 60)
        if left < 1:
            raise Busy(
                f"more than {self._most:g} requests in a minute", (1 - left) * 60 / self._most
            )
        if client not in self._buckets and len(self._buckets) >= _REMEMBERED:
            self._forget(now)
        self._buckets[client] = (left - 1, now)

    def _forget(self, now: float) -> None:
        self._buckets = {
            client: (left, since)
            for client, (left, since) in self._buckets.items()
            if left + (now - since) * self._most / 60 < self._most
        }
