"""The numbers of a figure in words and as rows, for people who do not see the picture."""

from llmchat.output.plots.figures import (
    BarChart,
    Figure,
    LineChart,
    finite,
    gap_note,
    number_text,
    usable,
    value_text,
)

# Rows of a table of the points of curves; the picture has all of them.
_MOST_ROWS = 200


def describe(figure: Figure) -> str:
    """What a picture shows, in a few sentences."""
    sentences = [
        _of_curves(chart) if isinstance(chart, LineChart) else _of_bars(chart)
        for chart in figure.charts
    ]
    return " ".join(sentences)


def tables(figure: Figure) -> list[tuple[list[str], list[list[str]]]]:
    """The heads and the rows of a table for each chart."""
    return [
        _curve_table(chart) if isinstance(chart, LineChart) else _bar_table(chart)
        for chart in figure.charts
    ]


def _of_curves(chart: LineChart) -> str:
    parts = []
    for one in chart.curves:
        points = finite(one.points)
        if points:
            lowest = min(y for _, y in points)
            parts.append(
                f"{one.label} from {points[0][1]:.4g} at {chart.x_label} {points[0][0]:g} to"
                f" {points[-1][1]:.4g} at {points[-1][0]:g}, lowest {lowest:.4g}"
            )
    note = gap_note(chart)
    return f"{chart.y_label}: {'; '.join(parts) or 'no values'}." + (f" {note}." if note else "")


def _of_bars(chart: BarChart) -> str:
    parts = [f"{bar.label} {value_text(chart, bar)}" for bar in chart.bars]
    return f"{chart.title}: {', '.join(parts)}." + (f" {chart.note}." if chart.note else "")


def _curve_table(chart: LineChart) -> tuple[list[str], list[list[str]]]:
    steps = sorted({x for one in chart.curves for x, _ in one.points})
    every = -(-len(steps) // _MOST_ROWS) or 1
    chosen = sorted({*steps[::every], *steps[-1:]})
    columns = [dict(one.points) for one in chart.curves]
    rows = [[f"{x:g}", *(_cell(column, x) for column in columns)] for x in chosen]
    return [chart.x_label, *(one.label for one in chart.curves)], rows


def _cell(column: dict[float, float], x: float) -> str:
    if x not in column:
        return ""
    return f"{column[x]:.4g}" if usable(column[x]) else "not finite"


def _bar_table(chart: BarChart) -> tuple[list[str], list[list[str]]]:
    rows = [
        [
            bar.label,
            value_text(chart, bar),
            *(number_text(end, chart) if usable(end) else "" for end in (bar.low, bar.high)),
        ]
        for bar in chart.bars
    ]
    if not any(row[2] or row[3] for row in rows):
        return [chart.title, "value"], [row[:2] for row in rows]
    return [chart.title, "value", "from", "to"], rows
