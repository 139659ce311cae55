"""Copies of the states of one text, which can be continued but not cut: going back in a text
requires a copy from there.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

States = Sequence[Tensor | None]

MOST = 12
MOST_BYTES = 256_000_000


@dataclass(frozen=True)
class StateCopy:
    """The states of all blocks after `length` tokens."""

    length: int
    states: tuple[Tensor | None, ...]

    @property
    def size(self) -> int:
        return sum(state.nbytes for state in self.states if state is not None)


class StateCopies:
    """Copies by the number of tokens read, at most MOST of them and MOST_BYTES.

    Early ones are thinned out first.
    """

    def __init__(self) -> None:
        self._copies: list[StateCopy] = []

    def __iter__(self) -> Iterator[StateCopy]:
        return iter(self._copies)

    def keep(self, length: int, states: States) -> None:
        """Copy the states after `length` tokens. Nothing later is kept."""
        if any(copy.length == length for copy in self._copies):
            return
        self.cut(length)
        self._copies.append(StateCopy(length, copied(states)))
        while len(self._copies) > MOST or sum(copy.size for copy in self._copies) > MOST_BYTES:
            self._copies.pop(least_useful([copy.length for copy in self._copies]))

    def last(self, length: int) -> StateCopy | None:
        """The last copy after at most `length` tokens."""
        return next((copy for copy in reversed(self._copies) if copy.length <= length), None)

    def cut(self, length: int) -> None:
        """Drop the copies after more than `length` tokens."""
        self._copies = [copy for copy in self._copies if copy.length <= length]

    def thin(self) -> None:
        """Keep those of the last turn: before its question, and before its answer."""
        self._copies = self._copies[-2:]


def least_useful(lengths: Sequence[int]) -> int:
    """The copy whose loss costs the least reading, relative to its distance; never the last.

    lengths: the tokens read at each copy, ascending.
    """
    starts = [0, *lengths]
    costs = [(start - before) / (starts[-1] - before + 1) for before, start in pairwise(starts)]
    return min(range(max(1, len(costs) - 1)), key=costs.__getitem__)


def copied(states: States) -> tuple[Tensor | None, ...]:
    with torch.inference_mode():
        return tuple(None if state is None else state.clone() for state in states)


def put_back(source: States, target: States) -> None:
    """Overwrite states with others of the same shapes."""
    with torch.inference_mode():
        for taken, state in zip(source, target, strict=True):
            if state is not None and taken is not None:
                state.copy_(taken)


def zero(states: States) -> None:
    with torch.inference_mode():
        for state in states:
            if state is not None:
                state.zero_()
