"""How long a download waits, and for what: progress, or an end, within a bounded time.

A connection must bring `rate` bytes a second, averaged over `window` seconds; a fault that passes is tried again a few times, and only
real progress starts the count anew. LLMCHAT_PULL_WINDOW and LLMCHAT_PULL_RATE set the two numbers.
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

# Seconds before another try; a server that names a time of its own is given it, up to the longest.
WAITS = (1.0, 2.0, 4.0, 8.0)
LONGEST_WAIT = 120
_LONG_WAIT = 10

_Value = TypeVar("_Value")


class TransferLimits(Struct, frozen=True):
    """window: seconds; rate: bytes a second; silence: seconds without a byte after which a connection is given up."""

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
        """Bytes that count as progress between two faults: what a connection brings in one window, at least."""
        return max(1, int(self.window * self.rate))


def _number(world: World, name: str, default: float) -> float:
    try:
        value = float(world.env.get(name) or default)
    except ValueError:
        value = -1.0
    if not 0 < value <= 1_000_000_000:
        raise UsageError(f"{name} must be a number above 0")
    return value


class Watchdog:
    """Ends one connection, from a thread of its own, when it brings less than the patience asks for, whatever it is doing then.

    longest: windows after which it ends in any case, for an answer that must be short. `slow`: whether it did.
    """

    def __init__(self, limits: TransferLimits, longest: int | None = None):
        self._limits, self._longest = limits, longest
        self._over = threading.Event()
        self._lines: list[socket.socket] = []
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
            for line in self._lines:
                line.close()
            self._lines.clear()

    def advance(self, count: int) -> None:
        self._count += count

    def trace(self, event: str, info: dict[str, Any]) -> None:
        """Called by the HTTP library with each step: every new connection is held by a handle that TLS does not take away."""
        if not event.endswith("connect_tcp.complete"):
            return
        wire = info["return_value"].get_extra_info("socket")
        with self._guard:
            self._lines.append(socket.socket(fileno=os.dup(wire.fileno())))
        if self._ended:
            self.hang_up()

    def hang_up(self) -> None:
        """End the connection now, also one that is only being made."""
        self._ended = True
        with self._guard:
            for line in self._lines:
                with suppress(OSError):
                    line.shutdown(socket.SHUT_RDWR)

    def _look(self) -> None:
        seen, windows = 0, 0
        while not self._over.wait(self._limits.window):
            windows += 1
            if self._count - seen < self._limits.step or windows == self._longest:
                self.slow = True
                return self.hang_up()
            seen = self._count


def patiently(
    act: Callable[[], _Value],
    wait_for: Callable[[Exception, int], float | None],
    *,
    moved: Callable[[], int] = lambda: 0,
    step: int = 1,
    stop: threading.Event | None = None,
    tell: Callable[[float, Exception], None] = lambda seconds, error: None,
) -> _Value:
    """Do `act` again after faults that pass, a few times in a row; `step` more of what has `moved` starts the count anew.

    wait_for: seconds until the next try, from the fault and the tries before; None ends it. tell: hears of a long wait.
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
