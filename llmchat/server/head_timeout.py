"""uvicorn's HTTP protocol with two limits that uvicorn lacks: a timeout for the head of a request
(against slow-loris attacks), and fairness between addresses when connections run out."""

import asyncio
from collections import Counter

from uvicorn.protocols.http.h11_impl import H11Protocol

HEAD_TIMEOUT_S = 10.0


class HeadTimeoutProtocol(H11Protocol):
    """Closes a connection if the next request's head is not complete within HEAD_TIMEOUT_S of its
    first byte (or of the connection).

    When connections run out, a new one displaces an inactive one of the address with the most.
    """

    _connected_at = 0.0
    _timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._connected_at = self.loop.time()
        if self.limit_concurrency is not None and len(self.connections) >= self.limit_concurrency:
            self._displace_another()
        self._update_timer()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._update_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._cancel_timer()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._update_timer()

    @property
    def address(self) -> str:
        """The client's IP address; "" over the Unix socket."""
        return self.client[0] if self.client else ""

    @property
    def answering(self) -> bool:
        """Whether a complete request has arrived that is not fully answered."""
        cycle = self.cycle
        return cycle is not None and not cycle.response_complete and not cycle.more_body

    @property
    def _receiving_body(self) -> bool:
        return self.cycle is not None and self.cycle.more_body

    def _displace_another(self) -> None:
        """Close one connection of the address with the most of them, unless it is answering: idle
        ones first, then the oldest. An address never loses one to an address with as many."""
        others = [
            one
            for one in self.connections
            if isinstance(one, HeadTimeoutProtocol) and one is not self
        ]
        counts = Counter(one.address for one in others)
        own_count = counts[self.address]

        def may_close(one: HeadTimeoutProtocol) -> bool:
            least = own_count - (one.address == self.address)
            return not one.answering and counts[one.address] > least

        def priority(one: HeadTimeoutProtocol) -> tuple[int, bool, float]:
            return -counts[one.address], one._receiving_body, one._connected_at

        closable = [one for one in others if may_close(one)]
        if closable:
            chosen = min(closable, key=priority)
            self.connections.discard(chosen)
            chosen.transport.abort()

    def _update_timer(self) -> None:
        """Let the timer run while a head is expected, and only then."""
        if self.cycle is not None and not self.cycle.response_complete:
            self._cancel_timer()
            return
        # Between two requests, uvicorn's own keep-alive timer runs until the first byte.
        keep_alive = self.timeout_keep_alive_task is not None
        if self._timer is None and not keep_alive and not self.transport.is_closing():
            self._timer = self.loop.call_later(HEAD_TIMEOUT_S, self.transport.close)

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
