"""The speeds of a benchmark as bars."""

from llmchat.bench.report import Benchmark, Row
from llmchat.output.plots.figures import Bar, BarChart, Figure, tidy


def speed_figure(report: Benchmark) -> Figure:
    """Decode and prefill of every engine and kind of weights."""
    note = (
        f"medians of {report.rounds} rounds; lines: slowest to fastest" if report.rounds > 1 else ""
    )
    charts = [
        BarChart(title, "tokens/s", tuple(_bar(row, name) for row in report.rows), note=note)
        for title, name in (
            (f"{tidy(report.model)}: decode", "decode_tps"),
            (f"{tidy(report.model)}: prefill", "prefill_tps"),
        )
    ]
    return Figure("", tuple(charts))


def _bar(row: Row, name: str) -> Bar:
    runs = row.runs.get(name) or []
    low, high = (min(runs), max(runs)) if len(runs) > 1 else (None, None)
    return Bar(tidy(row.engine), getattr(row, name), low, high)
