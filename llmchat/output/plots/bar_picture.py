"""Lay out bars and intervals as shapes."""

from llmchat.output.plots.figures import Bar, BarChart, drawable, usable, value_text
from llmchat.output.plots.measures import BASE, LINE, cut_to, text_width, wrapped
from llmchat.output.plots.scale import Scale, of_bars
from llmchat.output.plots.shapes import Label, Mark, Polyline, Rectangle, Shape

_ROW = 26.0
_FEWEST = 180.0


def bar_shapes(chart: BarChart, width: float) -> tuple[list[Shape], float]:
    """A row for each bar, or two in a narrow picture, the axis and the note; and their height."""
    shapes: list[Shape] = []
    y = 0.0
    for line in wrapped(chart.title, width):
        shapes.append(Label(0, y + BASE, line))
        y += LINE
    if not drawable(chart):
        return [*shapes, Label(0, y + BASE, "no values to plot", colour="muted")], y + LINE
    values = [value_text(chart, bar) for bar in chart.bars]
    widest = max(map(text_width, values))
    margin = max(text_width(bar.label) for bar in chart.bars) + 10
    above = width - margin - widest - 10 < _FEWEST
    left, right = (4.0, width - 6) if above else (margin, width - widest - 14)
    axis = of_bars(chart, max(2, int((right - left) / 70)))
    y += 4
    top = y
    for bar, value in zip(chart.bars, values, strict=True):
        if above:
            label = cut_to(bar.label, width - widest - 20)
            shapes += [Label(0, y + BASE, label), Label(width - 6, y + BASE, value, "end")]
            y += LINE
        else:
            shapes += [Label(0, y + 17, bar.label), Label(width, y + 17, value, "end")]
        shapes += _bar(chart, bar, axis, (left, right), y + _ROW / 2)
        y += _ROW
    shapes = [*_axis(axis, left, right, top, y), *shapes]
    y += LINE + 6
    for line in wrapped(chart.note, width):
        shapes.append(Label(0, y + BASE, line, colour="muted"))
        y += LINE
    return shapes, y


def _axis(axis: Scale, left: float, right: float, top: float, bottom: float) -> list[Shape]:
    shapes: list[Shape] = [Polyline(((left, bottom), (right, bottom)), "muted")]
    for tick, text in zip(axis.ticks, axis.labels, strict=True):
        x = left + axis.place(tick) * (right - left)
        half = text_width(text) / 2
        shapes += [
            Polyline(((x, top), (x, bottom + 4)), "grid"),
            Label(max(x, half), bottom + 5 + BASE, text, "middle", "muted"),
        ]
    return shapes


def _bar(
    chart: BarChart, bar: Bar, axis: Scale, ends: tuple[float, float], y: float
) -> list[Shape]:
    left, right = ends

    def across(number: float) -> float:
        return left + min(max(axis.place(number), 0.0), 1.0) * (right - left)

    if not usable(bar.value):
        return []
    shapes: list[Shape] = []
    if chart.zero:
        start, end = sorted((across(0), across(bar.value)))
        shapes.append(Rectangle(start, y - 6, end - start, 12, 0))
    low, high = (across(end) if usable(end) else None for end in (bar.low, bar.high))
    if low is not None and high is not None:
        shapes += [
            Polyline(((low, y), (high, y)), "text", 1.5),
            Polyline(((low, y - 5), (low, y + 5)), "text", 1.5),
            Polyline(((high, y - 5), (high, y + 5)), "text", 1.5),
        ]
    if not chart.zero:
        shapes.append(Mark(across(bar.value), y, 0, 0, 4.5))
    return shapes
