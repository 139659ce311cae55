"""Fits codes and scales to the numbers of groups, by weighted least squares.

Tensors of all numbers are [group, rows, groups], those of a group [rows, groups]: sums over a group
then run along memory.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

# How many codes more than there are a group's range has at the start of a fit: each start rounds
# the numbers to other codes.
_MORE_CODES = (-0.9, -0.6, -0.3, 0.0, 0.3, 0.6, 1.0, 1.6, 2.4)
_TURNS = 2
_SMALLEST = 1e-30


@dataclass
class Moments:
    """Weighted sums over a group: of code², code, code * x, 1 and x."""

    cc: Tensor
    c: Tensor
    cx: Tensor
    one: Tensor
    x: Tensor

    def best(self) -> tuple[Tensor, Tensor]:
        """The step, and the value of code 0 (at most 0), with the least error."""
        alone = divided(self.cx, self.cc).clamp_(min=0)
        determinant = self.cc * self.one - self.c * self.c
        step = divided(self.cx * self.one - self.c * self.x, determinant)
        low = divided(self.cc * self.x - self.c * self.cx, determinant)
        is_valid = (low <= 0) & (step > 0)
        return torch.where(is_valid, step, alone), torch.where(is_valid, low, 0.0)

    def error(self, step: Tensor, low: Tensor) -> Tensor:
        """The weighted squared error, less the one of zeros."""
        squares = step * (step * self.cc + 2 * (low * self.c - self.cx))
        return squares + low * (low * self.one - 2 * self.x)


class Fit:
    """Numbers of groups, to be written as step * code + low. Codes are floats from 0 to `top`."""

    def __init__(self, x: Tensor, weights: Tensor, top: int):
        self._top = top
        self._x, self._weights, self._weighted = x, weights, x * weights
        self._sums = weights.sum(0).expand_as(x[0]), self._weighted.sum(0)

    @property
    def groups(self) -> int:
        return int(self._x.shape[2])

    def codes(self, step: Tensor, low: Tensor) -> Tensor:
        inverse = torch.where(step == 0, 0.0, 1 / step)
        found = torch.addcmul(-low * inverse, self._x, inverse)
        return found.round_().clamp_(0, self._top)

    def moments(self, codes: Tensor) -> Moments:
        weighted = codes * self._weights
        c = weighted.sum(0)
        cc = weighted.mul_(codes).sum(0)
        cx = torch.mul(codes, self._weighted, out=weighted).sum(0)
        return Moments(cc, c, cx, *self._sums)

    def searched(self) -> tuple[Tensor, Tensor]:
        """Step and low of each group: from several starts, codes and scales by turns."""
        best = torch.full_like(self._x[0], torch.inf)
        found = torch.zeros_like(best), torch.zeros_like(best)
        for start in self._starts():
            step, low = start
            for _ in range(_TURNS):
                moments = self.moments(self.codes(step, low))
                step, low = moments.best()
            error = moments.error(step, low)
            is_better = error < best
            best = torch.where(is_better, error, best)
            found = (
                torch.where(is_better, step, found[0]),
                torch.where(is_better, low, found[1]),
            )
        return found

    def _starts(self) -> list[tuple[Tensor, Tensor]]:
        low, high = self._x.amin(0).clamp_(max=0), self._x.amax(0)
        return [((high - low) / (self._top + more), low) for more in _MORE_CODES]


def divided(a: Tensor, b: Tensor) -> Tensor:
    """a / b, 0 where b vanishes."""
    return torch.where(b.abs() > _SMALLEST, a / b, 0.0)
