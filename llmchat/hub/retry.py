"""Limits of a download: it makes progress or ends, within a bounded time.

A connection must deliver `rate` bytes a second, averaged over `window` seconds. A temporary fault
is retried a few times; only progress resets the count. LLMCHAT_PULL_WINDOW and LLMCHAT_PULL_RATE
set the two numbers.
"""

import os
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeVar

from msgspec import Struct

from llmchat.errors import UsageError
from llmchat.settings import World

# Seconds before each retry; a server may ask for another time, up to the longest.
WAITS = (1.0, 2.0, 4.0, 8.0)
LONGEST_WAIT = 120
_LONG_WAIT = 10

_Value = TypeVar("_Value")


class TransferLimits(Struct, frozen=True):
    """window: seconds; rate: bytes a second; silence: seconds without a byte before a timeout."""

    window: float = 30.0
    rate: float = 1000.0
    silence: float = 10.0

    @classmethod
    def of(cls, world: World) -> "TransferLimits":
        window = _number(world, "LLMCHAT_PULL_WINDOW", cls().window)
        return cls(
            window,
            _number(world, "LLMCHAT_PULL_RATE", cls().rate),
            min(window / 3, _number(world, "HF_HUB_DOWNLOAD_TIMEOUT", cls().silence)),
        )

    @property
    def step(self) -> int:
        """Bytes that count as progress between two faults: the least for one window."""
        return max(1, int(self.window * self.rate))

    @property
    def too_slow(self) -> str:
        """Describe a connection slower than these limits."""
        return f"less than {self.rate:,.0f} bytes a second for {self.window:g} seconds"


def _number(world: World, name: str, default: float) -> float:
    try:
        value = float(world.env.get(name) or default)
    except ValueError:
        value = -1.0
    if not 0 < value <= 1_000_000_000:
        raise UsageError(f"{name} must be a number above 0")
    return value


class Watchdog:
    """A thread that closes one connection when it is slower than the limits, in any phase.

    longest: windows after which it is closed in any case, for an answer that must be short; slow:
    whether the watchdog closed it.
    """

    def __init__(self, limits: TransferLimits, longest: int | None = None):
        self._limits, self._longest = limits, longest
        self._over = threading.Event()
        self._sockets: list[socket.socket] = []
        self._guard = threading.Lock()
        self._ended = False
        self.slow = False
        self._count = 0

    def __enter__(self) -> "Watchdog":
        threading.Thread(target=self._look, name="watch", daemon=True).start()
        return self

    def __exit__(self, *fault: object) -> None:
        self._over.set()
        with self._guard:
            for connection in self._sockets:
                connection.close()
            self._sockets.clear()

    def advance(self, count: int) -> None:
        self._count += count

    def trace(self, event: str, info: dict[str, Any]) -> None:
        """Called by the HTTP library for each event: duplicate the socket of every new connection.

        TLS takes the socket itself over; the duplicate can still be shut down.
        """
        if not event.endswith("connect_tcp.complete"):
            return
        opened = info["return_value"].get_extra_info("socket")
        with self._guard:
            self._sockets.append(socket.socket(fileno=os.dup(opened.fileno())))
        if self._ended:
            self.hang_up()

    def hang_up(self) -> None:
        """Close the connection now, even while it is being made."""
        self._ended = True
        with self._guard:
            for connection in self._sockets:
                with suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)

    def _look(self) -> None:
        seen, windows = 0, 0
        while not self._over.wait(self._limits.window):
            windows += 1
            if self._count - seen < self._limits.step or windows == self._longest:
                self.slow = True
                return self.hang_up()
            seen = self._count


def retrying(
    act: Callable[[], _Value],
    wait_for: Callable[[Exception, int], float | None],
    *,
    moved: Callable[[], int] = lambda: 0,
    step: int = 1,
    stop: threading.Event | None = None,
    tell: Callable[[float, Exception], None] = lambda seconds, error: None,
) -> _Value:
    """Call `act` until it succeeds, again after temporary faults.

    moved, step: a growth of `moved()` by `step` between faults resets the count of retries;
    wait_for: seconds until the next attempt, from the fault and the retries so far, None to give
    up; tell: called before a long wait; stop: ends the wait.
    """
    tries, seen = 0, moved()
    while True:
        try:
            return act()
        except Exception as error:
            if moved() - seen >= step:
                tries, seen = 0, moved()
            wait = wait_for(error, tries)
            if wait is None:
                raise
            tries += 1
            if wait >= _LONG_WAIT:
                tell(wait, error)
            if pause(wait, stop):
                raise


def pause(seconds: float, stop: threading.Event | None = None) -> bool:
    """Wait; True at once when `stop` is set."""
    return (stop or threading.Event()).wait(seconds)
