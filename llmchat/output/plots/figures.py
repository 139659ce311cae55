"""What is plotted, as values: charts of curves and of bars. Nothing here knows how it looks."""

import math
from collections.abc import Iterable, Sequence
from typing import TypeGuard

from msgspec import Struct

# Larger numbers would overflow in differences; no loss or score means anything up there.
_LARGEST = 1e305

Point = tuple[float, float]


class Curve(Struct, frozen=True):
    """A series of (x, y) in order of x; a y that is not finite leaves a gap."""

    label: str
    points: tuple[Point, ...]


class LineChart(Struct, frozen=True):
    """Curves over one x axis.

    whole: x counts something, such as steps, so ticks are whole numbers.
    """

    title: str
    x_label: str
    y_label: str
    curves: tuple[Curve, ...]
    whole: bool = True


class Bar(Struct, frozen=True):
    """One value with its interval; None: not measured."""

    label: str
    value: float | None
    low: float | None = None
    high: float | None = None


class BarChart(Struct, frozen=True):
    """Values beside each other.

    unit: written behind the values. end: where the axis ends, 100 for per cent. zero: the axis
    begins at 0 and values are lengths; otherwise they are positions on a free axis, which is
    logarithmic where they differ 20-fold. note: what the intervals are, and which way is better.
    """

    title: str
    unit: str
    bars: tuple[Bar, ...]
    zero: bool = True
    end: float | None = None
    note: str = ""


Chart = LineChart | BarChart


class Figure(Struct, frozen=True):
    """Charts below each other, under one title."""

    title: str
    charts: tuple[Chart, ...]

    @property
    def empty(self) -> bool:
        """Whether there is no value to draw."""
        return not any(_values(chart) for chart in self.charts)

    @property
    def compares(self) -> bool:
        """Whether a chart shows more than a single value, which a line of text says as well."""
        return any(_values(chart) > 1 for chart in self.charts)


def curve(label: str, points: Iterable[tuple[float, float | None]]) -> Curve:
    """A curve from points in any order; None becomes a gap, like a value that is not finite."""
    numbers = [(x, math.nan if y is None else y) for x, y in points if usable(x)]
    return Curve(label, tuple(sorted(numbers, key=lambda point: point[0])))


def tidy(label: str) -> str:
    """A label from outside on one line, without characters that a terminal or a page obeys."""
    return " ".join("".join(one if one.isprintable() else " " for one in label).split())


def usable(number: float | None) -> TypeGuard[float]:
    """Whether a number can be drawn."""
    # False for NaN, too; a whole number can be too large for a float.
    return number is not None and abs(number) < _LARGEST


def finite(points: Sequence[Point]) -> list[Point]:
    return [point for point in points if usable(point[1])]


def gap_note(chart: LineChart) -> str:
    """How many values are not finite; empty if all are."""
    gaps = [
        (one.label, len(one.points) - len(finite(one.points)))
        for one in chart.curves
        if len(finite(one.points)) < len(one.points)
    ]
    if not gaps:
        return ""
    return "gaps where values are not finite: " + ", ".join(
        f"{count:,} of {label}" for label, count in gaps
    )


def drawable(chart: BarChart) -> list[Bar]:
    """The bars that have a value."""
    return [bar for bar in chart.bars if usable(bar.value)]


def value_text(chart: BarChart, bar: Bar) -> str:
    """The value of a bar with its unit: `82.5 %`, `175 tokens/s`, `not measured`."""
    if bar.value is None:
        return "not measured"
    if not usable(bar.value):
        return "not finite"
    return f"{number_text(bar.value, chart)} {chart.unit}".rstrip()


def number_text(number: float, chart: BarChart) -> str:
    """Per cent with one decimal, other numbers with four significant digits."""
    if chart.unit == "%":
        return f"{number:.1f}"
    if 1000 <= abs(number) < 1e7:
        return f"{number:,.0f}"
    return f"{number:.4g}"


def _values(chart: Chart) -> int:
    if isinstance(chart, BarChart):
        return len(drawable(chart))
    return sum(len(finite(one.points)) for one in chart.curves)
