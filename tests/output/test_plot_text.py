"""Plots in characters: whole outputs at several widths, in UTF-8 and in ASCII."""

import math
import re
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmchat.output.plots.cells import ASCII, UNICODE, Canvas, Glyphs, cut, to_text, width_of
from llmchat.output.plots.figures import Bar, BarChart, Curve, Figure, LineChart, curve
from llmchat.output.plots.text import figure_rows

LOSSES = Figure(
    "pupil",
    (
        LineChart(
            "",
            "step",
            "loss",
            (
                curve("training", [(x, 2.0 if x < 2 else 2 / x) for x in range(1, 41)]),
                curve("held out", [(x, 2 / x + 0.1) for x in range(4, 41, 4)]),
            ),
        ),
    ),
)
SCORES = Figure(
    "",
    (
        BarChart(
            "quiz, exact: right answers",
            "%",
            (Bar("smollm2:off", 12.5, 7.1, 20.9), Bar("pupil", 82.5, 72.7, 89.3)),
            end=100,
            note="lines: 95 % intervals",
        ),
        BarChart(
            "prose, perplexity",
            "",
            (Bar("smollm2:off", 71.4, 65.0, 78.0), Bar("pupil", 73.6, 67.0, 80.0)),
            zero=False,
            note="lower is better",
        ),
    ),
)
SPEEDS = Figure(
    "",
    (
        BarChart(
            "decode",
            "tokens/s",
            (Bar("llmchat int8", 175.2), Bar("llama.cpp Q8_0", 134.1), Bar("OpenVINO", None)),
        ),
    ),
)


GOLDEN = Path(__file__).parent / "plots"


@pytest.fixture
def same_as_kept(request: pytest.FixtureRequest) -> Callable[[str, str], None]:
    """Compare a plot with a file; `--golden` writes it, to be read before it is committed."""

    def compare(name: str, text: str) -> None:
        path = GOLDEN / f"{name}.txt"
        if request.config.getoption("--golden"):
            path.parent.mkdir(exist_ok=True)
            path.write_text(f"{text}\n", "utf-8")
        assert text == path.read_text("utf-8").removesuffix("\n")

    return compare


def plain(figure: Figure, columns: int, glyphs: Glyphs = UNICODE, lines: int = 24) -> str:
    return to_text(figure_rows(figure, columns, lines, glyphs), colours=False, styles=False)


@pytest.mark.parametrize("columns", [40, 80, 120])
@pytest.mark.parametrize("name", ["losses", "scores", "speeds"])
def test_whole_plots(name: str, columns: int, same_as_kept: Callable[[str, str], None]) -> None:
    figure = {"losses": LOSSES, "scores": SCORES, "speeds": SPEEDS}[name]
    same_as_kept(f"{name}-{columns}", plain(figure, columns))


def test_a_terminal_without_utf_8_gets_ascii(same_as_kept: Callable[[str, str], None]) -> None:
    text = "\n\n".join(plain(figure, 60, ASCII) for figure in (LOSSES, SCORES, SPEEDS))
    assert text.isascii()
    same_as_kept("ascii-60", text)


@pytest.mark.parametrize("glyphs", [UNICODE, ASCII])
@pytest.mark.parametrize("columns", [1, 24, 33, 60, 100, 160])
@pytest.mark.parametrize("figure", [LOSSES, SCORES, SPEEDS])
def test_no_line_is_wider_than_the_terminal(figure: Figure, columns: int, glyphs: Glyphs) -> None:
    lines = plain(figure, columns, glyphs).splitlines()
    assert max(map(width_of, lines)) <= max(columns, 24)


def test_codes_are_written_only_where_they_are_allowed() -> None:
    rows = figure_rows(LOSSES, 60, 24, UNICODE)
    coloured = to_text(rows, colours=True, styles=True)
    assert "\x1b[36m" in coloured and "\x1b[2m" in coloured
    without = to_text(rows, colours=False, styles=True)
    assert "\x1b[36m" not in without and "\x1b[1mpupil" in without
    assert re.sub("\x1b\\[\\d+m", "", coloured) == to_text(rows, colours=False, styles=False)


def test_the_highest_point_is_at_the_top_and_the_first_at_the_left() -> None:
    chart = LineChart("", "step", "loss", (curve("a", [(0, 0.0), (10, 5.0)]),))
    rows = plain(Figure("", (chart,)), 40, lines=24).splitlines()[1:9]
    assert rows[0].endswith("●") and "●" in rows[-1].partition("┤")[2][:1]


def test_curves_are_told_apart_without_colour() -> None:
    text = plain(LOSSES, 80)
    assert "● training" in text and "■ held out" in text
    assert text.count("●") > 2 and text.count("■") == 11


def test_a_gap_stays_empty_and_is_noted() -> None:
    points = [(x, math.nan if 10 <= x < 30 else 1.0 + x / 100) for x in range(40)]
    text = plain(Figure("", (LineChart("", "step", "loss", (curve("a", points),)),)), 60)
    # The middle third of the columns has no dot in any row.
    cells = [line.partition("│")[2] or line.partition("┤")[2] for line in text.splitlines()]
    assert not "".join(cell[20:35] for cell in cells).strip("⠀ ")
    assert "gaps where values are not finite: 20 of a" in text


@pytest.mark.parametrize(
    "values", [[], [math.nan], [None], [math.inf, -math.inf]], ids=["0", "nan", "none", "infinite"]
)
def test_no_value_is_no_error(values: list[float | None]) -> None:
    chart = LineChart("", "step", "loss", (curve("a", enumerate(values)),))
    figure = Figure("", (chart, BarChart("b", "", tuple(Bar("x", value) for value in values))))
    assert figure.empty and plain(figure, 40).count("no values to plot") == 2


def test_one_point_is_a_mark() -> None:
    text = plain(Figure("", (LineChart("", "step", "loss", (curve("a", [(8, 1.25)]),)),)), 40)
    assert text.count("●") == 2 and "7" in text and "9" in text


def test_a_long_curve_is_drawn_with_no_more_lines_than_its_columns_show(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    drawn = []

    class Counting(Canvas):
        def line(self, *ends: Any) -> None:
            drawn.append(ends)
            super().line(*ends)

    monkeypatch.setattr("llmchat.output.plots.text.Canvas", Counting)
    points = tuple((float(x), math.sin(x / 9000)) for x in range(100_000))
    figure = Figure("", (LineChart("", "step", "loss", (Curve("a", points),)),))
    assert "⠤" in plain(figure, 120)
    # Two dots a column; first, lowest, highest and last of each.
    assert 0 < len(drawn) < 120 * 2 * 4


def test_small_differences_of_bars_are_visible_in_eighths() -> None:
    chart = BarChart("", "", (Bar("a", 100.0), Bar("b", 99.5)), end=100)
    first, second = plain(Figure("", (chart,)), 80).splitlines()[:2]
    assert first.count("█") == second.count("█") + 1 and any(part in second for part in "▏▎▍▌▋▊▉")


def test_wide_labels_keep_their_ends() -> None:
    assert cut("小说模型的名字很长", 9, "…") == "小说…很长"
    assert cut("adapter/one:0.5", 9, "…") == "adap…:0.5"


@given(st.lists(st.tuples(st.integers(0, 39), st.integers(0, 19)), min_size=2, max_size=5))
def test_a_line_has_no_gap(places: list[tuple[int, int]]) -> None:
    canvas = Canvas(40, 20, braille=False)
    for start, end in pairwise(places):
        canvas.line(start, end, "x", "")
    drawn = {
        (x, y)
        for y, row in enumerate(canvas.lines())
        for x, letter in enumerate("".join(text for text, _ in row))
        if letter == "x"
    }
    assert set(places) <= drawn
    reached, waiting = set(), [places[0]]
    while waiting:
        x, y = waiting.pop()
        if (x, y) in drawn and (x, y) not in reached:
            reached.add((x, y))
            waiting += [(x + right, y + down) for right in (-1, 0, 1) for down in (-1, 0, 1)]
    assert reached == drawn
