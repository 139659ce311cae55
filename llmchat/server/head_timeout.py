"""uvicorn's HTTP protocol with two limits that uvicorn has not: for the time that a request's head may take (slow loris), and for what one
address may hold where connections run out."""

import asyncio
from collections import Counter

from uvicorn.protocols.http.h11_impl import H11Protocol

HEAD_TIMEOUT_S = 10.0


class HeadTimeoutProtocol(H11Protocol):
    """Closes a connection whose next request has not arrived, head and all, within HEAD_TIMEOUT_S of its first byte (or of the connection).

    Where there are too many, a new one takes the place of one that has nothing to do, of the address with the most.
    """

    _since = 0.0
    _deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._since = self.loop.time()
        if self.limit_concurrency is not None and len(self.connections) >= self.limit_concurrency:
            self._displace()
        self._watch()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._forget()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._watch()

    @property
    def address(self) -> str:
        """Where it comes from; "" over the Unix socket."""
        return self.client[0] if self.client else ""

    @property
    def working(self) -> bool:
        """Whether a whole request has arrived that is not answered yet."""
        return (
            self.cycle is not None and not self.cycle.response_complete and not self.cycle.more_body
        )

    def _displace(self) -> None:
        """Close a connection of the address with the most, the oldest of those that do least; of no address that has fewer than this one's."""
        others = [
            one
            for one in self.connections
            if isinstance(one, HeadTimeoutProtocol) and one is not self
        ]
        held = Counter(one.address for one in others)
        going = [
            one
            for one in others
            if not one.working
            and held[one.address] > held[self.address] - (one.address == self.address)
        ]
        if going:
            chosen = min(
                going,
                key=lambda one: (
                    -held[one.address],
                    one.cycle is not None and one.cycle.more_body,
                    one._since,
                ),
            )
            self.connections.discard(chosen)
            chosen.transport.abort()

    def _watch(self) -> None:
        """Run the clock while a head is awaited, and only then."""
        if self.cycle is not None and not self.cycle.response_complete:
            self._forget()
        elif (
            self._deadline is None
            and self.timeout_keep_alive_task is None
            and not self.transport.is_closing()
        ):
            self._deadline = self.loop.call_later(HEAD_TIMEOUT_S, self.transport.close)

    def _forget(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
