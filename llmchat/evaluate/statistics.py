"""Confidence intervals of 95 % for a score, and for a difference on the same items.

Arithmetic only, no resampling. A fraction of right answers has Wilson's interval (Wilson 1927;
recommended for small n by Brown, Cai and DasGupta 2001). The difference of two on the same items
has Newcombe's (1998, Statistics in Medicine 17, 2635-2650, method 10), and its p-value is
McNemar's exact test. A perplexity is the ratio of two sums over texts; its interval is the ratio
estimator's (Cochran 1977, Sampling Techniques, chapter 6) in the logarithm, with Student's t
because texts are often few.
"""

import math
from collections.abc import Sequence

from msgspec import Struct

# The normal quantile that leaves 2.5 % on each side.
Z = 1.959963984540054

Interval = tuple[float, float]


class Paired(Struct, frozen=True):
    """The second model against the first, on the items that both have.

    p: None if only an interval is computed; gained: items that only the second has right; lost:
    items
    that only the first has right.
    """

    n: int
    difference: float
    interval: Interval | None
    p: float | None = None
    gained: int = 0
    lost: int = 0


def wilson(right: float, n: int) -> Interval | None:
    """Wilson's score interval of right / n; None without items."""
    if n == 0:
        return None
    share, z2 = right / n, Z * Z
    centre = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = Z / (1 + z2 / n) * math.sqrt(share * (1 - share) / n + z2 / (4 * n * n))
    # With none or all right, the ends are 0 and 1; rounding must not exceed them.
    return (0.0 if right == 0 else centre - half, 1.0 if right == n else centre + half)


def paired_shares(first: Sequence[bool], second: Sequence[bool]) -> Paired:
    """The difference of two proportions on the same items: Newcombe's interval, McNemar's p."""
    n = len(first)
    both = sum(one and other for one, other in zip(first, second, strict=True))
    lost, gained = sum(first) - both, sum(second) - both
    if n == 0:
        return Paired(0, 0.0, None)
    difference, interval = newcombe(both, gained, lost, n - both - gained - lost)
    return Paired(n, difference, interval, mcnemar(gained, lost), gained, lost)


def newcombe(both: int, only_one: int, only_other: int, neither: int) -> tuple[float, Interval]:
    """The difference (only_one - only_other) / n and its interval.

    After Newcombe 1998, method 10.
    """
    n = both + only_one + only_other + neither
    p1, p2 = (both + only_one) / n, (both + only_other) / n
    (l1, u1), (l2, u2) = (
        wilson(both + only_one, n) or (0, 0),
        wilson(both + only_other, n) or (0, 0),
    )
    margins = (
        (both + only_one) * (only_other + neither) * (both + only_other) * (only_one + neither)
    )
    product = both * neither - only_one * only_other
    corrected = max(product - n / 2, 0) if product > 0 else product
    phi = corrected / math.sqrt(margins) if margins else 0.0
    down = (p1 - l1) ** 2 - 2 * phi * (p1 - l1) * (u2 - p2) + (u2 - p2) ** 2
    up = (u1 - p1) ** 2 - 2 * phi * (u1 - p1) * (p2 - l2) + (p2 - l2) ** 2
    return p1 - p2, (p1 - p2 - math.sqrt(max(down, 0)), p1 - p2 + math.sqrt(max(up, 0)))


def mcnemar(gained: int, lost: int) -> float:
    """Two-sided exact p: how likely a fair coin splits the differing items so unevenly."""
    n = gained + lost
    return min(
        1.0, 2 * sum(math.comb(n, count) for count in range(min(gained, lost) + 1)) / (1 << n)
    )


def ratio(values: Sequence[float], sizes: Sequence[float]) -> tuple[float, Interval | None]:
    """sum(values) / sum(sizes) over independent texts, and its interval.

    The interval is None for fewer than two texts. Equal sizes give the mean.
    """
    n, total = len(values), sum(sizes)
    centre = sum(values) / total if total else 0.0
    if n < 2 or not total:
        return centre, None
    squares = sum((value - centre * size) ** 2 for value, size in zip(values, sizes, strict=True))
    half = student(n - 1) * math.sqrt(n / (n - 1) * squares) / total
    return centre, (centre - half, centre + half)


def paired_ratio(first: Sequence[float], second: Sequence[float], sizes: Sequence[float]) -> Paired:
    """The difference of two ratios with the same sizes, text by text."""
    difference, interval = ratio(
        [other - one for one, other in zip(first, second, strict=True)], sizes
    )
    return Paired(len(first), difference, interval)


def student(freedom: int) -> float:
    """The quantile of Student's t with 2.5 % above it, for whole degrees of freedom."""
    low, high = 1.0, 13.0
    while high - low > 1e-9:
        middle = (low + high) / 2
        low, high = (middle, high) if _student_within(middle, freedom) < 0.95 else (low, middle)
    return (low + high) / 2


def _student_within(t: float, freedom: int) -> float:
    """P(-t < T < t), the finite sums 26.7.3 and 26.7.4 of Abramowitz and Stegun."""
    angle = math.atan(t / math.sqrt(freedom))
    cosine, sine = math.cos(angle), math.sin(angle)
    term, total = (cosine, cosine) if freedom % 2 else (1.0, 1.0)
    for step in range(2 + freedom % 2, freedom - 1, 2):
        term *= cosine * cosine * (step - 1) / step
        total += term
    if freedom % 2 == 0:
        return sine * total
    return 2 / math.pi * (angle + (sine * total if freedom > 1 else 0.0))
