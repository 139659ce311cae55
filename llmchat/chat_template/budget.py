"""The steps, memory and time that one run of a chat template may take.

An operation pays for each value before it makes it. Memory is computed as an upper bound, not
measured, so the same template stops at the same place on every machine.
"""

import sys
import time
from collections.abc import Collection
from typing import Any

# Parts of a template (names, constants, operators) that may be evaluated. The longest
# conversations of real templates need some hundred thousand.
MAX_STEPS = 2_000_000
# Seconds of CPU time.
MAX_SECONDS = 5.0
# Bytes of the largest value and of all values together. Each grows with the size of the
# variables that the template is given.
VALUE_BYTES, VALUE_BYTES_PER_GIVEN = 2_000_000, 8
TOTAL_BYTES, TOTAL_BYTES_PER_GIVEN = 50_000_000, 64

_STEPS_BETWEEN_CLOCK_READS = 1_000
# From here on the exact size of a text is computed.
_LONG_TEXT = 100_000
_CONTAINERS: tuple[type[Collection[Any]], ...] = (
    list,
    tuple,
    set,
    frozenset,
    type({}.keys()),
    type({}.values()),
    type({}.items()),
)


class BeyondLimits(Exception):
    """A template exceeded a limit. The message continues a sentence that starts with `it`."""


class Budget:
    """What is left of the limits of one run. A run takes place in one thread.

    given: the variables of the template. Their size is computed when the basic allowance is spent.
    """

    __slots__ = (
        "_allowed_value",
        "_bytes_left",
        "_deadline",
        "_given",
        "_steps_left",
        "_until_clock_read",
    )

    def __init__(self, given: Any = ()):
        self._given = given
        self._steps_left = MAX_STEPS
        self._allowed_value = VALUE_BYTES
        self._bytes_left = TOTAL_BYTES
        self._until_clock_read = _STEPS_BETWEEN_CLOCK_READS
        self._deadline = 0.0

    def step(self, count: int = 1) -> bool:
        """Pay for steps. Returns True, so that a call can be part of a condition."""
        self._steps_left -= count
        if self._steps_left < 0:
            raise BeyondLimits(f"takes more than {MAX_STEPS:,} steps")
        self._until_clock_read -= count
        if self._until_clock_read < 0:
            self._read_clock()
        return True

    def spend(self, size: int) -> None:
        """Pay for a value of `size` bytes before it is made."""
        self._bytes_left -= size
        if size > self._allowed_value or self._bytes_left < 0:
            self._allow_for_given()
            if size > self._allowed_value:
                raise _too_large(self._allowed_value)
            if self._bytes_left < 0:
                raise BeyondLimits("takes too much memory")
        self._until_clock_read -= size >> 6
        if self._until_clock_read < 0:
            self._read_clock()

    def pay_for(self, value: Any, times: int = 1) -> Any:
        """Pay `times` over for a value with everything it holds. Returns the value."""
        self._allow_for_given()
        size = deep_size(value, self._allowed_value)
        self.step(size >> 5)
        self.spend(size * times)
        return value

    def _allow_for_given(self) -> None:
        if self._given is not None:
            size = deep_size(self._given)
            self._given = None
            self._allowed_value += VALUE_BYTES_PER_GIVEN * size
            self._bytes_left += TOTAL_BYTES_PER_GIVEN * size

    def _read_clock(self) -> None:
        now = time.thread_time()
        self._deadline = self._deadline or now + MAX_SECONDS
        self._until_clock_read = _STEPS_BETWEEN_CLOCK_READS
        if now > self._deadline:
            raise BeyondLimits(f"takes more than {MAX_SECONDS:g} seconds")


def text_size(text: str) -> int:
    """Bytes of a text: an upper bound for ASCII, exact where the text is long."""
    return len(text) if len(text) < _LONG_TEXT else sys.getsizeof(text)


def deep_size(value: Any, limit: int | None = None) -> int:
    """Bytes of a value with everything it holds. What is held twice counts twice, as in its text.

    Raises BeyondLimits as soon as the sum exceeds `limit`.
    """
    total, waiting = 0, [value]
    while waiting:
        item = waiting.pop()
        if isinstance(item, str):
            total += len(item) + 8
        elif isinstance(item, dict):
            total += 64 + 32 * len(item)
            waiting += item
            waiting += item.values()
        elif isinstance(item, _CONTAINERS):
            total += 64 + 8 * len(item)
            waiting += item
        else:
            total += 32
        if limit is not None and total > limit:
            raise _too_large(limit)
    return total


def _too_large(limit: int) -> BeyondLimits:
    return BeyondLimits(f"makes a value larger than {limit:,} bytes")
