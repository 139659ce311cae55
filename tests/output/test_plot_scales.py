"""Axes have round ticks within their range; long curves keep their peaks when they are thinned."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmchat.output.plots.figures import Bar, BarChart, LineChart, curve, gap_note
from llmchat.output.plots.scale import linear, logarithmic, of_bars, of_curves, of_steps
from llmchat.output.plots.thinning import runs, thin

numbers = st.floats(-1e12, 1e12, allow_nan=False).filter(lambda one: one == 0 or abs(one) > 1e-12)


@given(numbers, numbers, st.integers(2, 12), st.booleans(), st.booleans())
def test_ticks_are_rising_and_within_the_axis(
    one: float, other: float, most: int, whole: bool, widen: bool
) -> None:
    low, high = sorted((one, other))
    scale = linear(low, high, most, whole=whole, widen=widen)
    assert scale.low < scale.high
    assert list(scale.ticks) == sorted(scale.ticks) and len(scale.ticks) <= 2 * most + 3
    margin = (scale.high - scale.low) * 1e-6
    assert all(scale.low - margin <= tick <= scale.high + margin for tick in scale.ticks)
    if widen or high - low <= 1e-12 * max(abs(low), abs(high)):
        assert scale.low <= low + margin and scale.high >= high - margin
    if not whole:
        assert len(scale.ticks) >= 2


@pytest.mark.parametrize(
    ("low", "high", "most", "labels"),
    [
        (0, 2.3, 5, ("0.0", "0.5", "1.0", "1.5", "2.0")),
        (3.103, 3.117, 4, ("3.105", "3.110", "3.115")),
        (0, 0.001, 4, ("0.0000", "0.0005", "0.0010")),
        (0, 1_000_000, 5, ("0", "500,000", "1,000,000")),
        (0, 3e8, 4, ("0", "1e+08", "2e+08", "3e+08")),
        (2.0, 2.0, 3, ("1", "2", "3")),
    ],
)
def test_labels_have_the_decimals_of_their_step(
    low: float, high: float, most: int, labels: tuple[str, ...]
) -> None:
    assert linear(low, high, most).labels == labels


def test_steps_are_whole_numbers() -> None:
    chart = LineChart("", "step", "loss", (curve("a", [(1, 2.0), (2, 1.0), (3, 1.0)]),))
    assert of_steps(chart, 9).labels == ("1", "2", "3")


def test_a_logarithmic_axis_places_factors_evenly() -> None:
    scale = logarithmic(1, 1000, 5)
    assert scale.labels == ("1", "10", "100", "1,000") and scale.log
    assert [round(scale.place(tick), 3) for tick in scale.ticks] == [0.0, 0.333, 0.667, 1.0]


def test_lengths_begin_at_zero_and_positions_need_not() -> None:
    bars = (Bar("a", 71.4, 65, 78), Bar("b", 73.6, 67, 80))
    assert of_bars(BarChart("", "", bars), 5).low == 0
    assert of_bars(BarChart("", "", bars, zero=False), 5).low == 65
    assert of_bars(BarChart("", "%", bars, end=100), 5).high == 100


def test_perplexities_that_differ_widely_get_a_logarithmic_axis() -> None:
    near = BarChart("", "", (Bar("a", 10), Bar("b", 100)), zero=False)
    far = BarChart("", "", (Bar("a", 10), Bar("b", 500)), zero=False)
    assert not of_bars(near, 5).log and of_bars(far, 5).log


def test_a_loss_near_zero_is_drawn_from_zero_and_another_is_not() -> None:
    def low(*losses: float) -> float:
        points = list(enumerate(losses))
        return of_curves(LineChart("", "", "", (curve("a", points),)), 5).low

    assert low(2.0, 0.3) == 0 and low(3.117, 3.103) == 3.103 and low(-1.0, 1.0) == -1


def test_values_that_are_not_finite_become_gaps_and_a_note() -> None:
    one = curve("training", [(3, 1.0), (1, 3.0), (2, math.nan), (4, None), (5, math.inf), (6, 2.0)])
    assert runs(one.points) == [[(1, 3.0)], [(3, 1.0)], [(6, 2.0)]]
    chart = LineChart("", "", "", (one, curve("held out", [(1, 1.0)])))
    assert gap_note(chart) == "gaps where values are not finite: 3 of training"


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=400), st.integers(1, 20))
def test_thinning_keeps_the_ends_and_the_extremes_of_each_part(
    values: list[float], buckets: int
) -> None:
    points = [(float(x), y) for x, y in enumerate(values)]
    low, high = points[0][0], points[-1][0]
    kept = thin(points, buckets, low, high)
    assert set(kept) <= set(points) and kept == sorted(kept, key=lambda point: point[0])
    assert kept[0] == points[0] and kept[-1] == points[-1]
    assert min(y for _, y in kept) == min(values) and max(y for _, y in kept) == max(values)
    assert len(kept) <= max(4 * buckets, 4 * (buckets + 1))


def test_a_single_peak_among_100_000_points_survives() -> None:
    points = [(float(x), 1.0) for x in range(100_000)]
    points[54_321] = (54_321.0, 9.0)
    kept = thin(points, 100, 0.0, 99_999.0)
    assert (54_321.0, 9.0) in kept and len(kept) <= 404


@pytest.mark.parametrize(
    "points",
    [
        [(10**400, 1.0), (1, 2.0), (2, 1.0)],
        [(number, 5e-324 * number) for number in range(10)],
        [(1, 1e-300), (2, 3e-300)],
    ],
    ids=["a step without a float", "denormal numbers", "a range without exact ticks"],
)
def test_numbers_at_the_ends_of_floats_are_drawn(points: list[tuple[float, float]]) -> None:
    chart = LineChart("", "step", "loss", (curve("training", points),))
    for scale in (of_steps(chart, 6), of_curves(chart, 6)):
        assert scale.low < scale.high and len(scale.ticks) >= 2
