"""Draw charts with characters, for a terminal of any width."""

from collections.abc import Iterator
from itertools import pairwise

from llmchat.output.plots.axis_rows import axis_rows, note_rows
from llmchat.output.plots.bar_rows import bar_rows
from llmchat.output.plots.cells import BOLD, DIM, PLAIN, Canvas, Glyphs, Row, colour, cut, width_of
from llmchat.output.plots.figures import Curve, Figure, LineChart, finite, gap_note
from llmchat.output.plots.scale import Scale, of_curves, of_steps
from llmchat.output.plots.thinning import runs, spaced, thin

# Columns between two marks of one curve that has many points; each curve has other places.
_MARK_EVERY = 16
_FEWEST_ROWS, _MOST_ROWS = 6, 16
NARROWEST = 24


def figure_rows(figure: Figure, columns: int, lines: int, glyphs: Glyphs) -> list[Row]:
    """All charts below each other. columns, lines: the size of the terminal."""
    columns = max(columns, NARROWEST)
    rows: list[Row] = []
    if figure.title:
        rows.append([(cut(figure.title, columns, glyphs.ellipsis), BOLD)])
    for chart in figure.charts:
        if rows and len(figure.charts) > 1:
            rows.append([])
        if isinstance(chart, LineChart):
            rows += line_rows(chart, columns, lines, glyphs)
        else:
            rows += bar_rows(chart, columns, glyphs)
    return rows


def line_rows(chart: LineChart, columns: int, lines: int, glyphs: Glyphs) -> list[Row]:
    """Curves, axes and legend."""
    drawn = [one for one in chart.curves if finite(one.points)]
    note = gap_note(chart)
    head: Row = [(cut(chart.title or chart.y_label, columns, glyphs.ellipsis), PLAIN)]
    if not drawn:
        return [head, [("no values to plot", DIM)], *note_rows(note, columns)]
    height = max(_FEWEST_ROWS, min(_MOST_ROWS, columns // 5, lines - 8))
    y_axis = of_curves(chart, max(3, height // 2))
    margin = max(map(len, y_axis.labels)) + 1
    canvas = Canvas(columns - margin - 1, height, braille=glyphs.braille)
    x_axis = of_steps(chart, max(2, canvas.columns // 9))
    for index, one in enumerate(chart.curves):
        _draw(one, index, len(drawn) > 1, canvas, (x_axis, y_axis), glyphs)
    return [
        head,
        *_framed(canvas, y_axis, margin, glyphs),
        *axis_rows(x_axis, margin, canvas.columns, glyphs),
        *_legend(chart, columns, glyphs),
        *note_rows(note, columns),
    ]


def _draw(
    one: Curve,
    index: int,
    several: bool,
    canvas: Canvas,
    axes: tuple[Scale, Scale],
    glyphs: Glyphs,
) -> None:
    x_axis, y_axis = axes
    mark, code = glyphs.marks[index % len(glyphs.marks)], colour(index)
    marked: list[tuple[int, int]] = []
    for run in runs(one.points):
        dots = [
            (
                round(x_axis.place(x) * (canvas.width - 1)),
                round((1 - y_axis.place(y)) * (canvas.height - 1)),
            )
            for x, y in thin(run, canvas.width, x_axis.low, x_axis.high)
        ]
        for start, end in pairwise(dots):
            canvas.line(start, end, mark, code)
        if len(dots) == 1:
            canvas.put(*dots[0], mark, code)
        marked += dots
    # Colour alone must not tell curves apart; where points are few, each one is marked.
    if len(marked) > canvas.columns // 3:
        every = _MARK_EVERY * canvas.width // canvas.columns
        first = (index * every // 3) % every
        marked = list(spaced(marked, first, every)) if several else []
    for x, y in marked:
        canvas.put(x, y, mark, code)


def _framed(canvas: Canvas, axis: Scale, margin: int, glyphs: Glyphs) -> Iterator[Row]:
    """The canvas with the y axis and its labels at the left."""
    wall, tick, *_ = glyphs.axis
    at = {
        round((1 - axis.place(place)) * (canvas.height - 1))
        // (canvas.height // canvas.rows): label
        for place, label in zip(axis.ticks, axis.labels, strict=True)
    }
    for number, row in enumerate(canvas.lines()):
        label = at.get(number)
        side = f"{label or '':>{margin - 1}} {tick if label is not None else wall}"
        yield [(side, DIM), *row]


def _legend(chart: LineChart, columns: int, glyphs: Glyphs) -> list[Row]:
    """The marks of the curves, and the name of the x axis at the right."""
    rows: list[Row] = [[]]
    used = 0
    for index, one in enumerate(chart.curves):
        mark = glyphs.marks[index % len(glyphs.marks)]
        label = cut(one.label, columns - 4, glyphs.ellipsis)
        if used and used + width_of(label) + 4 > columns:
            rows.append([])
            used = 0
        rows[-1] += [(mark, colour(index)), (f" {label}  ", PLAIN)]
        used += width_of(label) + 4
    name = cut(chart.x_label, columns, glyphs.ellipsis)
    if used + width_of(name) > columns:
        rows.insert(0, [])
        used = 0
    # The name of the axis is on the first row, next to the axis.
    first = sum(width_of(piece) for piece, _ in rows[0])
    rows[0].append((" " * (columns - first - width_of(name)) + name, DIM))
    return rows
