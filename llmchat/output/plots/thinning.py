"""Reduce a long curve to what a screen can show, without losing a peak."""

from collections.abc import Iterable, Iterator, Sequence
from typing import TypeVar

from llmchat.output.plots.figures import Point, usable

Place = TypeVar("Place", bound=tuple[float, float])


def runs(points: Sequence[Point]) -> list[list[Point]]:
    """The stretches of a curve between its gaps."""
    found: list[list[Point]] = [[]]
    for point in points:
        if usable(point[1]):
            found[-1].append(point)
        elif found[-1]:
            found.append([])
    return [run for run in found if run]


def thin(run: Sequence[Point], buckets: int, low: float, high: float) -> list[Point]:
    """At most four points for each of `buckets` equal parts of low ≤ x ≤ high.

    First, lowest, highest and last of each part, in their order: the drawn line has the same
    pixels as all points would give (M4; Jugel et al. 2014, VLDB 7(10), 797–808).
    """
    if len(run) <= 4 * buckets:
        return list(run)
    return [point for part in _parts(run, buckets, low, high) for point in _m4(part)]


def spaced(places: Iterable[Place], start: float, every: float) -> Iterator[Place]:
    """Places of a drawn curve, about every `every` of x from `start` on: where it has marks."""
    due = start
    for place in places:
        if place[0] >= due:
            yield place
            due = place[0] + every


def _parts(
    run: Sequence[Point], buckets: int, low: float, high: float
) -> Iterator[Sequence[Point]]:
    width = (high - low) / buckets
    start = 0
    for end in range(1, len(run) + 1):
        if end == len(run) or int((run[end][0] - low) / width) != int(
            (run[start][0] - low) / width
        ):
            yield run[start:end]
            start = end


def _m4(part: Sequence[Point]) -> list[Point]:
    places = range(len(part))
    chosen = {
        0,
        min(places, key=lambda place: part[place][1]),
        max(places, key=lambda place: part[place][1]),
        len(part) - 1,
    }
    return [part[place] for place in sorted(chosen)]
