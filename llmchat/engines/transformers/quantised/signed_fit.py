"""Fits codes and scales without a minimum: a number of a group is written as step * value, where
a code stands for a value. Tensors are [group, rows, groups] and [rows, groups], as in fit.py.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from llmchat.engines.transformers.quantised.fit import divided

# Where the largest number of a group lies at the start of a fit, as fractions of the outermost
# value, on either side.
_PLACES = (1.0, 0.93, 0.86, 1.08, 1.25)
_TURNS = 2


@dataclass
class SignedMoments:
    """Weighted sums over a group: of value² and value * x."""

    cc: Tensor
    cx: Tensor

    def best(self) -> Tensor:
        """The step with the least error."""
        return divided(self.cx, self.cc)

    def error(self, step: Tensor) -> Tensor:
        """The weighted squared error, less the one of zeros."""
        return step * (step * self.cc - 2 * self.cx)


class Values:
    """What codes stand for: the whole numbers from -zero on, or the whole numbers of a table."""

    def __init__(self, bits: int, zero: int = 0, table: tuple[int, ...] | None = None):
        self._zero = zero
        self.ends = (-zero, (1 << bits) - 1 - zero) if table is None else (min(table), max(table))
        self._nearest: Tensor | None = None
        if table is not None:
            codes = torch.tensor(table, dtype=torch.float32)
            # Borders between values are multiples of a half: the middle of each half has no tie.
            middles = (torch.arange(2 * self.ends[0], 2 * self.ends[1]) + 0.5) / 2
            self._codes = (middles[:, None] - codes).abs().argmin(1).to(torch.uint8)
            self._nearest = codes[self._codes.long()]

    def nearest(self, x: Tensor) -> Tensor:
        """The values that are nearest to numbers, which are overwritten."""
        if self._nearest is None:
            return x.round_().clamp_(*self.ends)
        return self._nearest[self._half(x)]

    def codes(self, values: Tensor) -> Tensor:
        """uint8 codes of values."""
        if self._nearest is None:
            return (values + self._zero).to(torch.uint8)
        return self._codes[self._half(values)]

    def _half(self, x: Tensor) -> Tensor:
        """The place of numbers among the halves between the ends."""
        least, most = self.ends
        halves = (x * 2).nan_to_num_().floor_().clamp_(2 * least, 2 * most - 1)
        return halves.sub_(2 * least).to(torch.int32)


class SignedFit:
    """Numbers of groups. values: what a code stands for."""

    def __init__(self, x: Tensor, weights: Tensor, values: Values):
        self._x, self._weights, self._weighted, self._values = x, weights, x * weights, values

    @property
    def groups(self) -> int:
        return int(self._x.shape[2])

    def nearest(self, step: Tensor) -> Tensor:
        return self._values.nearest(self._x * torch.where(step == 0, 0.0, 1 / step))

    def moments(self, values: Tensor) -> SignedMoments:
        cx = (values * self._weighted).sum(0)
        return SignedMoments(values.square().mul_(self._weights).sum(0), cx)

    def searched(self) -> Tensor:
        """The step of each group: from several starts, codes and steps by turns."""
        best = torch.full_like(self._x[0], torch.inf)
        found = torch.zeros_like(best)
        for step in self._starts():
            for _ in range(_TURNS):
                moments = self.moments(self.nearest(step))
                step = moments.best()
            error = moments.error(step)
            is_better = error < best
            best, found = torch.where(is_better, error, best), torch.where(is_better, step, found)
        return found

    def _starts(self) -> list[Tensor]:
        low, high = self._x.amin(0), self._x.amax(0)
        largest = torch.where(-low > high, low, high)
        return [largest / (end * place) for place in _PLACES for end in self._values.ends]
