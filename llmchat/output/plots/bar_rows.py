"""Draw bars and intervals with characters."""

from llmchat.output.plots.axis_rows import axis_rows, note_rows
from llmchat.output.plots.cells import DIM, PLAIN, Glyphs, Row, colour, cut, padded, width_of
from llmchat.output.plots.figures import Bar, BarChart, drawable, usable, value_text
from llmchat.output.plots.scale import Scale, of_bars

# A bar with fewer cells says little; labels then stand above the bars.
_FEWEST_CELLS = 24
_WIDEST = 100


def bar_rows(chart: BarChart, columns: int, glyphs: Glyphs) -> list[Row]:
    """A row for each bar, or two where the terminal is narrow, and the axis below."""
    columns = min(columns, _WIDEST)
    rows: list[Row] = [[(cut(chart.title, columns, glyphs.ellipsis), PLAIN)]] if chart.title else []
    if not drawable(chart):
        return [*rows, [("no values to plot", DIM)]]
    values = [value_text(chart, bar) for bar in chart.bars]
    widest = max(map(width_of, values))
    margin = max(width_of(bar.label) for bar in chart.bars) + 1
    above = columns - margin - widest - 2 < _FEWEST_CELLS
    if above:
        margin = 0
    cells = columns - margin - 1 - (0 if above else widest + 1)
    axis = of_bars(chart, max(2, cells // 9))
    for bar, value in zip(chart.bars, values, strict=True):
        drawn = [(glyphs.axis[0], DIM), *_bar(chart, bar, axis, cells, glyphs)]
        if above:
            label = cut(bar.label, columns - widest - 2, glyphs.ellipsis)
            gap = columns - width_of(label) - width_of(value)
            rows += [[(label + " " * gap + value, PLAIN)], drawn]
        else:
            rows.append(
                [(padded(bar.label, margin), PLAIN), *drawn, (f" {value:>{widest}}", PLAIN)]
            )
    rows += axis_rows(axis, margin, cells, glyphs)
    return [*rows, *note_rows(chart.note, columns)]


def _bar(chart: BarChart, bar: Bar, axis: Scale, cells: int, glyphs: Glyphs) -> Row:
    """One bar, `cells` wide."""
    if not usable(bar.value):
        return [(" " * cells, PLAIN)]
    if chart.zero and bar.low is None and bar.high is None:
        return _filled(axis.place(bar.value), axis.place(0), cells, glyphs)
    return _with_interval(chart, bar, bar.value, axis, cells, glyphs)


def _filled(end: float, start: float, cells: int, glyphs: Glyphs) -> Row:
    """A filled bar, exact to an eighth of a cell where the characters allow."""
    low, high = sorted((start, end))
    parts = len(glyphs.part)
    eighths = round((high - low) * cells * parts)
    text = glyphs.part[-1] * (eighths // parts)
    if eighths % parts:
        text += glyphs.part[eighths % parts - 1]
    return [(padded(" " * round(low * cells) + text, cells)[:cells], colour(0))]


def _with_interval(
    chart: BarChart, bar: Bar, measured: float, axis: Scale, cells: int, glyphs: Glyphs
) -> Row:
    """A line from 0 where the axis begins there, the interval, and the value as a mark."""

    def cell(number: float) -> int:
        return round(min(max(axis.place(number), 0.0), 1.0) * (cells - 1))

    row = [(" ", PLAIN)] * cells
    value = cell(measured)
    if chart.zero:
        start, end = sorted((cell(0), value))
        row[start : end + 1] = [(glyphs.bar, colour(0))] * (end - start + 1)
    low = cell(bar.low) if usable(bar.low) else value
    high = cell(bar.high) if usable(bar.high) else value
    for place in range(low, high + 1):
        if row[place][0] == " ":
            row[place] = (glyphs.whisker, PLAIN)
    if low < value:
        row[low] = (glyphs.low, PLAIN)
    if high > value:
        row[high] = (glyphs.high, PLAIN)
    row[value] = (glyphs.value, colour(0))
    return row
