"""What one run of a chat template may spend: steps, memory and time. Every value is paid for before it is made.

Memory is counted in bytes that values take at most, not measured: the same template is stopped at the same place on every machine. Each
thread has one run at a time; `spending` makes its budget the one that the operations of that thread pay from.
"""

import contextlib
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

# Parts of a template (names, constants, operators) that may be evaluated. The longest conversations of real templates need some hundred thousand.
MAX_STEPS = 2_000_000
# Seconds of the processor.
MAX_SECONDS = 5.0
# Bytes of one value, and of all that are made: this, and so many times what the template was given.
ONE, ONE_GIVEN = 2_000_000, 8
ALL, ALL_GIVEN = 50_000_000, 64

_LOOK_EVERY = 1_000
_LARGE = 100_000


class BeyondLimits(Exception):
    """A template is stopped. The message goes on after `it`."""


class Budget:
    """given: what the template is given. It is weighed only where what every template may spend is not enough."""

    __slots__ = ("_end", "_given", "_left", "_most", "_steps", "_until_look")

    def __init__(self, given: Any = ()):
        self._steps = MAX_STEPS
        self._given = given
        self._most = ONE
        self._left = ALL
        self._until_look = _LOOK_EVERY
        self._end = 0.0

    def most(self) -> int:
        """Bytes of the largest value that may be made."""
        self._grant()
        return self._most

    def _grant(self) -> None:
        if self._given is not None:
            weight = weigh(self._given)
            self._given = None
            self._most += ONE_GIVEN * weight
            self._left += ALL_GIVEN * weight

    def step(self, count: int = 1) -> bool:
        """True, so that it can be a part of a condition."""
        self._steps -= count
        if self._steps < 0:
            raise BeyondLimits(f"takes more than {MAX_STEPS:,} steps")
        self._until_look -= count
        if self._until_look < 0:
            self._look()
        return True

    def spend(self, size: int) -> None:
        """Pay for a value of so many bytes before it is made."""
        self._left -= size
        if size > self._most or self._left < 0:
            self._grant()
            if size > self._most:
                raise BeyondLimits(f"makes something larger than {self._most:,} bytes")
            if self._left < 0:
                raise BeyondLimits("takes too much memory")
        self._until_look -= size >> 6
        if self._until_look < 0:
            self._look()

    def _look(self) -> None:
        now = time.thread_time()
        self._end = self._end or now + MAX_SECONDS
        self._until_look = _LOOK_EVERY
        if now > self._end:
            raise BeyondLimits(f"takes more than {MAX_SECONDS:g} seconds")


_here = threading.local()


def budget() -> Budget:
    """The budget of the run under way in this thread."""
    here: Budget = _here.budget
    return here


@contextlib.contextmanager
def spending(budget: Budget) -> Iterator[Budget]:
    before = getattr(_here, "budget", None)
    _here.budget = budget
    try:
        yield budget
    finally:
        _here.budget = before


def bytes_of(text: str) -> int:
    """Of a text, at most; exactly where it is long."""
    return len(text) if len(text) < _LARGE else sys.getsizeof(text)


def weigh(value: Any, most: int | None = None) -> int:
    """Bytes of a value with all that it holds, counted again wherever it is held again: its text is about as long.

    Raises BeyondLimits above `most` bytes, before it walks on.
    """
    total, rest = 0, [value]
    while rest:
        one = rest.pop()
        if isinstance(one, str):
            total += len(one) + 8
        elif isinstance(one, dict):
            total += 64 + 32 * len(one)
            rest += one
            rest += one.values()
        elif isinstance(
            one,
            list | tuple | set | frozenset | type({}.keys()) | type({}.values()) | type({}.items()),
        ):
            total += 64 + 8 * len(one)
            rest += one
        else:
            total += 32
        if most is not None and total > most:
            raise BeyondLimits(f"makes something larger than {most:,} bytes")
    return total


def pay_for(value: Any, times: int = 1) -> Any:
    """Pay for `value` with all that it holds, `times` over; returns it."""
    here = budget()
    weight = weigh(value, here.most())
    here.step(weight >> 5)
    here.spend(weight * times)
    return value
