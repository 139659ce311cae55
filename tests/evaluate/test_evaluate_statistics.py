"""Intervals and tests by the numbers of their papers, and by what must always hold."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmchat.evaluate.statistics import (
    mcnemar,
    newcombe,
    paired_ratio,
    paired_shares,
    ratio,
    student,
    wilson,
)


@pytest.mark.parametrize(
    ("right", "n", "expected"),
    [
        (81, 263, (0.2553, 0.3662)),
        (15, 148, (0.0624, 0.1605)),
        (0, 20, (0.0, 0.1611)),
        (1, 29, (0.0061, 0.1718)),
    ],
)
def test_wilson_is_that_of_newcombes_table(
    right: int, n: int, expected: tuple[float, float]
) -> None:
    """R. G. Newcombe 1998, Statistics in Medicine 17, 857-872, table I, method 3."""
    assert wilson(right, n) == pytest.approx(expected, abs=5e-5)


def test_the_paired_difference_is_that_of_newcombes_example() -> None:
    """R. G. Newcombe 1998, Statistics in Medicine 17, 2635-2650, table II, method 10.

    The row is a = 36, b = 12, c = 2, d = 0.
    """
    difference, interval = newcombe(36, 12, 2, 0)
    assert difference == pytest.approx(0.2) and interval == pytest.approx(
        (0.0569, 0.3404), abs=5e-5
    )


def test_mcnemar_is_the_exact_binomial() -> None:
    assert mcnemar(8, 2) == mcnemar(2, 8) == pytest.approx(0.109375)
    assert mcnemar(0, 0) == 1 and mcnemar(5, 5) == 1 and mcnemar(0, 6) == pytest.approx(2 / 64)
    assert mcnemar(1500, 900) < 1e-9, "many items are no overflow"


@pytest.mark.parametrize(
    ("freedom", "quantile"),
    [(1, 12.7062), (2, 4.3027), (3, 3.1824), (5, 2.5706), (10, 2.2281), (30, 2.0423), (100, 1.984)],
)
def test_students_quantiles_are_those_of_the_tables(freedom: int, quantile: float) -> None:
    assert student(freedom) == pytest.approx(quantile, abs=5e-5)


def test_a_ratio_with_equal_sizes_is_a_mean_with_its_t_interval() -> None:
    centre, interval = ratio([1, 2, 3, 4], [1, 1, 1, 1])
    half = 3.1824463 * math.sqrt(5 / 3 / 4)
    assert centre == 2.5 and interval == pytest.approx((2.5 - half, 2.5 + half), abs=1e-6)
    assert ratio([3.0], [2.0]) == (1.5, None) and ratio([], []) == (0.0, None)


def test_gains_and_losses_are_counted_on_the_items_of_both() -> None:
    paired = paired_shares([True, True, False, False, True], [True, False, True, True, True])
    assert (paired.n, paired.gained, paired.lost, paired.p) == (
        5,
        2,
        1,
        1.0,
    ) and paired.difference == pytest.approx(0.2)
    assert paired_shares([], []).interval is None


@given(st.integers(1, 500).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_lies_around_the_share(case: tuple[int, int]) -> None:
    right, n = case
    low, high = wilson(right, n) or (1, 0)
    assert 0 <= low <= right / n <= high <= 1 and low < high


@given(st.tuples(*[st.integers(0, 60)] * 4).filter(any))
def test_swapping_two_models_turns_the_interval_round(table: tuple[int, int, int, int]) -> None:
    both, one, other, neither = table
    difference, (low, high) = newcombe(both, one, other, neither)
    assert -1 - 1e-9 <= low <= difference + 1e-9 and difference - 1e-9 <= high <= 1 + 1e-9
    swapped, (swapped_low, swapped_high) = newcombe(both, other, one, neither)
    assert (swapped, swapped_low, swapped_high) == pytest.approx(
        (-difference, -high, -low), abs=1e-9
    )


@given(
    st.lists(
        st.tuples(st.floats(0, 1e3), st.floats(0, 1e3), st.integers(1, 500)),
        min_size=2,
        max_size=30,
    )
)
def test_a_paired_ratio_is_the_difference_of_two_ratios(
    texts: list[tuple[float, float, int]],
) -> None:
    one, other, sizes = (
        [text[0] for text in texts],
        [text[1] for text in texts],
        [float(text[2]) for text in texts],
    )
    paired = paired_ratio(one, other, sizes)
    assert paired.difference == pytest.approx(
        ratio(other, sizes)[0] - ratio(one, sizes)[0], abs=1e-6
    )
    assert paired_ratio(one, one, sizes).interval == (0, 0)


def test_bits_per_byte_of_few_texts_are_never_negative() -> None:
    from llmchat.evaluate.report import _positive
    from llmchat.evaluate.statistics import ratio

    few = ratio([0.1, 0.1, 9.0], [1.0, 1.0, 1.0])
    assert few[1] is not None and few[1][0] < 0
    mean, interval = _positive(few)
    assert mean == few[0] and interval == (0.0, few[1][1])
