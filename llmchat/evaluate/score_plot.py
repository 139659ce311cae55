"""The scores of an evaluation, and the speeds of a comparison, as bars with their intervals."""

from collections.abc import Iterator, Sequence
from statistics import median

from llmchat.evaluate.report import Row
from llmchat.evaluate.statistics import Interval
from llmchat.output.plots.figures import Bar, BarChart, Figure, tidy

_INTERVALS = "lines: 95 % intervals; models can differ clearly although these overlap"


def score_figure(rows: Sequence[Row]) -> Figure:
    """One chart for each task: right answers in per cent, perplexity, or the harness's metric."""
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        groups.setdefault((row.task, row.kind), []).append(row)
    charts = [
        chart for (task, kind), found in groups.items() for chart in _charts(task, kind, found)
    ]
    return Figure("", tuple(charts))


def _charts(task: str, kind: str, rows: Sequence[Row]) -> Iterator[BarChart]:
    name = tidy(f"{task}, {kind}")
    if all(row.share for row in rows):
        bars = tuple(_bar(row, row.score, row.interval, 100) for row in rows)
        yield BarChart(f"{name}: right answers", "%", bars, end=100, note=_INTERVALS)
        return
    bars = tuple(_bar(row, row.score, row.interval) for row in rows)
    if kind != "perplexity":
        yield BarChart(name, "", bars, zero=False, note=_INTERVALS)
        return
    yield BarChart(name, "", bars, zero=False, note=f"lower is better; {_INTERVALS}")
    if len(rows) > 1:
        bars = tuple(_bar(row, row.bits_per_byte, row.bits_per_byte_interval) for row in rows)
        note = "lower is better; comparable between tokenizers"
        yield BarChart(f"{tidy(task)}, bits per byte", "bits/byte", bars, note=note)


def _bar(row: Row, value: float | None, interval: Interval | None, factor: float = 1) -> Bar:
    low, high = interval or (None, None)
    scaled = [None if one is None else one * factor for one in (value, low, high)]
    return Bar(tidy(row.model), *scaled)


def speed_figure(speeds: Sequence[tuple[str, Sequence[float]]]) -> Figure:
    """Decode speeds of a comparison: model and the tokens per second of each of its answers."""
    bars = [
        Bar(tidy(model), median(found), min(found), max(found)) for model, found in speeds if found
    ]
    note = "medians over the prompts; lines: slowest to fastest"
    return Figure("", (BarChart("decode speed", "tokens/s", tuple(bars), note=note),))
