"""Axes: ranges, round ticks and their labels, linear and logarithmic."""

import math
from collections.abc import Iterator

from msgspec import Struct

from llmchat.output.plots.figures import Bar, BarChart, LineChart, drawable, finite, usable

# Values that differ by this factor are shown on a logarithmic axis, where it may be free.
_WIDE = 20.0
# A curve whose lowest value is below this part of its highest is drawn from 0.
_NEAR_ZERO = 0.5
# Tolerance for multiples of a step: 0.3 / 0.1 is 2.9999…
_HAIR = 1e-9
# Ranges below this are drawn as a single value: their ticks would not be exact.
_NARROWEST = 1e-290


class Scale(Struct, frozen=True):
    """An axis from `low` to `high`, low < high, with ticks in rising order."""

    low: float
    high: float
    ticks: tuple[float, ...]
    labels: tuple[str, ...]
    log: bool = False

    def place(self, number: float) -> float:
        """Where a number lies: 0 at the low end, 1 at the high end."""
        if self.log:
            low, high = math.log(self.low), math.log(self.high)
            return (math.log(number) - low) / (high - low)
        return (number - self.low) / (self.high - self.low)


def linear(
    low: float, high: float, most: int, *, whole: bool = False, widen: bool = False
) -> Scale:
    """A linear axis with about `most` round ticks, and never fewer than two.

    widen: extend both ends to a tick.
    """
    low, high = _apart(low, high, whole)
    step = _step(low, high, max(most, 2), 1.0 if whole else 0.0)
    first, last = _inside(low, high, step)
    if widen:
        first, last = math.floor(low / step + _HAIR), math.ceil(high / step - _HAIR)
        low, high = first * step, last * step
    ticks = [number * step for number in range(first, last + 1)]
    decimals = max(0, -math.floor(math.log10(step) + _HAIR))
    return Scale(low, high, tuple(ticks), tuple(_label(tick, decimals) for tick in ticks))


def logarithmic(low: float, high: float, most: int) -> Scale:
    """A logarithmic axis over positive numbers; ticks at 1, 2 and 5 times powers of ten."""
    ticks = list(_log_ticks(low, high))
    if len(ticks) > most:
        ticks = [tick for tick in ticks if f"{tick:e}".startswith("1.0")]
    ticks = ticks[:: -(-len(ticks) // max(most, 2))]
    return Scale(low, high, tuple(ticks), tuple(f"{tick:,.6g}" for tick in ticks), log=True)


def of_steps(chart: LineChart, most: int) -> Scale:
    """The x axis of a chart of curves, without empty space at its ends."""
    places = [x for one in chart.curves for x, _ in finite(one.points)]
    return linear(min(places), max(places), most, whole=chart.whole)


def of_curves(chart: LineChart, most: int) -> Scale:
    """The y axis of a chart of curves: from 0 where the curves come near it."""
    values = [y for one in chart.curves for _, y in finite(one.points)]
    low, high = min(values), max(values)
    if 0 <= low < _NEAR_ZERO * high:
        low = 0.0
    return linear(low, high, most)


def of_bars(chart: BarChart, most: int) -> Scale:
    """The axis of a chart of bars: from 0 where lengths are read."""
    ends = [end for bar in drawable(chart) for end in ends_of(bar)]
    low, high = min(ends), max(ends)
    if chart.zero:
        # To the next tick, unless the unit has an end of its own.
        return linear(min(low, 0.0), chart.end or max(high, 0.0), most, widen=chart.end is None)
    if low > 0 and high / low >= _WIDE:
        return logarithmic(low / 1.2, high * 1.2, most)
    return linear(low, high, most, widen=True)


def ends_of(bar: Bar) -> list[float]:
    """The value and the ends of its interval, as far as they can be drawn."""
    return [end for end in (bar.low, bar.value, bar.high) if usable(end)]


def _apart(low: float, high: float, whole: bool) -> tuple[float, float]:
    """A range of some width around a single value."""
    if high - low > max(1e-12 * max(abs(low), abs(high)), _NARROWEST):
        return low, high
    around = 1.0 if whole or abs(low) < _NARROWEST else abs(low) / 2
    return low - around, high + around


def _step(low: float, high: float, most: int, least: float) -> float:
    """The smallest of 1, 2 and 5 times a power of ten that gives at most `most` ticks.

    The next smaller one where that gives less than two, but none below `least`.
    """
    power = 10.0 ** math.floor(math.log10((high - low) / most))
    steps = [step for step in (power / 2, power, 2 * power, 5 * power, 10 * power) if step >= least]
    chosen = least
    for step in steps or [least]:
        first, last = _inside(low, high, step)
        if chosen and last - first + 1 < 2:
            break
        chosen = step
        if last - first + 1 <= most:
            break
    return chosen


def _inside(low: float, high: float, step: float) -> tuple[int, int]:
    """The numbers of the first and the last multiple of a step within a range."""
    return math.ceil(low / step - _HAIR), math.floor(high / step + _HAIR)


def _log_ticks(low: float, high: float) -> Iterator[float]:
    for power in range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1):
        for digit in (1, 2, 5):
            tick = digit * 10.0**power
            if low <= tick <= high:
                yield tick


def _label(tick: float, decimals: int) -> str:
    if tick and not 1e-4 <= abs(tick) < 1e7:
        return f"{tick:.3g}"
    return f"{tick + 0.0:,.{decimals}f}"
