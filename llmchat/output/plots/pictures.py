"""Lay charts out as pictures: the same shapes become SVG and PNG."""

from collections.abc import Iterator

from msgspec.structs import replace

from llmchat.output.plots.bar_picture import bar_shapes
from llmchat.output.plots.descriptions import describe
from llmchat.output.plots.figures import Curve, Figure, LineChart, finite, gap_note
from llmchat.output.plots.measures import BASE, LINE, cut_to, text_width, wrapped
from llmchat.output.plots.scale import Scale, of_curves, of_steps
from llmchat.output.plots.shapes import Label, Mark, Picture, Polyline, Rectangle, Shape
from llmchat.output.plots.thinning import runs, spaced, thin

_GAP = 14.0
# Distance between two marks of one curve that has many points.
_MARK_EVERY = 90.0


def picture(figure: Figure, width: float) -> Picture:
    """All charts of a figure below each other, `width` logical pixels wide; text is 13 high."""
    shapes: list[Shape] = []
    y = 0.0
    if figure.title:
        title = cut_to(figure.title, width)
        shapes.append(Label(0, BASE, title, bold=True))
        y = LINE
    for number, chart in enumerate(figure.charts):
        y += _GAP if number else 0
        if isinstance(chart, LineChart):
            found, height = line_shapes(chart, width)
        else:
            found, height = bar_shapes(chart, width)
        shapes += [_moved(shape, y) for shape in found]
        y += height
    title = figure.title or figure.charts[0].title if figure.charts else figure.title
    return Picture(width, y + 4, tuple(shapes), title, describe(figure))


def line_shapes(chart: LineChart, width: float) -> tuple[list[Shape], float]:
    """Curves with axes and legend, and their height."""
    head = Label(0, BASE, cut_to(chart.title or chart.y_label, width))
    if not any(finite(one.points) for one in chart.curves):
        return [head, Label(0, LINE + BASE, "no values to plot", colour="muted")], 2 * LINE
    top, bottom = LINE + 6.0, LINE + 6.0 + max(140.0, min(260.0, width * 0.45))
    y_axis = of_curves(chart, int((bottom - top) / 36))
    left = max(map(text_width, y_axis.labels)) + 8
    right = width - 6
    x_axis = of_steps(chart, max(2, int((right - left) / 70)))
    frame = (left, top, right, bottom)
    shapes = [head, *_grid(y_axis, frame), *_ticks(x_axis, frame)]
    for index, one in enumerate(chart.curves):
        shapes += _curve(one, index, len(chart.curves) > 1, (x_axis, y_axis), frame)
    below, end = _below(chart, width, bottom + LINE + 4)
    return [*shapes, *below], end


def _grid(axis: Scale, frame: tuple[float, float, float, float]) -> Iterator[Shape]:
    left, top, right, bottom = frame
    for tick, text in zip(axis.ticks, axis.labels, strict=True):
        y = bottom - axis.place(tick) * (bottom - top)
        yield Polyline(((left, y), (right, y)), "grid")
        yield Label(left - 6, y + 4, text, "end", "muted")


def _ticks(axis: Scale, frame: tuple[float, float, float, float]) -> Iterator[Shape]:
    left, _, right, bottom = frame
    yield Polyline(((left, bottom), (right, bottom)), "muted")
    for tick, text in zip(axis.ticks, axis.labels, strict=True):
        x = left + axis.place(tick) * (right - left)
        yield Polyline(((x, bottom), (x, bottom + 4)), "muted")
        half = text_width(text) / 2
        # The labels at the ends stay within the picture.
        yield Label(min(max(x, half), right + 6 - half), bottom + 4 + BASE, text, "middle", "muted")


def _curve(
    one: Curve,
    index: int,
    several: bool,
    axes: tuple[Scale, Scale],
    frame: tuple[float, float, float, float],
) -> list[Shape]:
    (x_axis, y_axis), (left, top, right, bottom) = axes, frame
    shapes: list[Shape] = []
    marked: list[tuple[float, float]] = []
    for run in runs(one.points):
        places = [
            (left + x_axis.place(x) * (right - left), bottom - y_axis.place(y) * (bottom - top))
            for x, y in thin(run, int(right - left), x_axis.low, x_axis.high)
        ]
        if len(places) > 1:
            shapes.append(Polyline(tuple(places), index, 1.8))
        else:
            shapes.append(Mark(*places[0], index, index))
        marked += places
    if len(marked) > (right - left) / 16:
        # Colour alone must not tell curves apart.
        start = left + index * _MARK_EVERY / 3 % _MARK_EVERY
        marked = list(spaced(marked, start, _MARK_EVERY)) if several else []
    return [*shapes, *(Mark(x, y, index, index) for x, y in marked)]


def _below(chart: LineChart, width: float, y: float) -> tuple[list[Shape], float]:
    """The name of the x axis, the legend and the note; and where they end."""
    shapes: list[Shape] = [Label(width - 6, y + BASE, chart.x_label, "end", "muted")]
    x, most = 4.0, width - text_width(chart.x_label) - 24
    for index, one in enumerate(chart.curves):
        label = cut_to(one.label, width - 30)
        if x > 4 and x + text_width(label) + 14 > most:
            x, y, most = 4.0, y + LINE, width
        shapes += [Mark(x, y + BASE - 4, index, index), Label(x + 10, y + BASE, label)]
        x += text_width(label) + 30
    for line in wrapped(gap_note(chart), width):
        y += LINE
        shapes.append(Label(0, y + BASE, line, colour="muted"))
    return shapes, y + LINE


def _moved(shape: Shape, down: float) -> Shape:
    if isinstance(shape, Polyline):
        return replace(shape, points=tuple((x, y + down) for x, y in shape.points))
    assert isinstance(shape, Rectangle | Mark | Label)
    return replace(shape, y=shape.y + down)
