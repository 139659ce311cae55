"""Writes a matrix in few bits without minima, in the grids of Q3_K, Q6_K, Q4_0, Q5_0, IQ4_NL,
IQ4_XS and MXFP4 of llama.cpp.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from llmchat.engines.transformers.quantised.fit import divided
from llmchat.engines.transformers.quantised.rows import Rows, in_rows
from llmchat.engines.transformers.quantised.signed_fit import SignedFit, Values
from llmchat.engines.transformers.quantised.types import GroupedWeight

_REFINEMENTS = 3
# MXFP4 tries these powers of two, from the one whose values reach a third of the largest number.
_POWERS = range(4)
# The least and the largest power of a scale of twice the values of E2M1.
_LEAST_POWER, _LARGEST_POWER = -128, 126


@dataclass(frozen=True)
class SignedGrid:
    """A code of so many bits is worth code - zero, or a number of the table. scales: the least
    and the largest whole scale of a group; None: a group is a block. has_powers: scales of blocks
    are powers of two.
    """

    bits: int
    group: int = 32
    block: int = 32
    zero: int = 0
    scales: tuple[int, int] | None = None
    table: tuple[int, ...] | None = None
    has_powers: bool = False

    def scale_type(self, weight: Tensor) -> torch.dtype:
        return torch.float32 if self.has_powers else torch.float16

    def fitted(
        self, rows: Tensor, importance: Tensor | None, numbers: torch.dtype
    ) -> GroupedWeight:
        found = _SignedRows(rows, importance, self, numbers)
        return found.with_powers() if self.has_powers else found.fitted()


class _SignedRows(Rows):
    def __init__(
        self, rows: Tensor, importance: Tensor | None, grid: SignedGrid, numbers: torch.dtype
    ):
        super().__init__(rows, importance, (grid.group, grid.block), numbers)
        self._grid = grid
        self._values = Values(grid.bits, grid.zero, grid.table)
        self._fit = SignedFit(self.x, self.weights, self._values)

    def fitted(self) -> GroupedWeight:
        step = self._fit.searched()
        scale = self._first(step)
        for _ in range(_REFINEMENTS):
            scales = self._levels(step, scale)
            moments = self._fit.moments(self._fit.nearest(self.along(scale) * scales))
            step = moments.best()
            scale = self._of_blocks(moments.cc, moments.cx, scales, scale)
        return self._weight(scale, self._levels(step, scale))

    def with_powers(self) -> GroupedWeight:
        """The power of two of each group with the least error."""
        least = self.x.abs().amax(0) / (3 * self._values.ends[1])
        one, power = (
            torch.ones_like(least),
            torch.frexp(least)[1].clamp_(_LEAST_POWER, _LARGEST_POWER),
        )
        best, found = torch.full_like(least, torch.inf), torch.zeros_like(least)
        for more in _POWERS:
            step = torch.ldexp(one, (power + more).clamp_(max=_LARGEST_POWER))
            error = self._fit.moments(self._fit.nearest(step)).error(step)
            is_better = error < best
            best, found = torch.where(is_better, error, best), torch.where(is_better, step, found)
        return self._weight(found, torch.ones_like(found))

    def _weight(self, scale: Tensor, scales: Tensor) -> GroupedWeight:
        grid = self._grid
        codes = self._values.codes(self._fit.nearest(self.along(scale) * scales))
        return GroupedWeight(
            in_rows(codes), grid.bits, grid.group, grid.block, self.stored(scale),
            None if grid.scales is None else scales.to(torch.int8), zero=grid.zero,
            table=None if grid.table is None else torch.tensor(grid.table, dtype=torch.int8),
        )  # fmt: skip

    def _first(self, step: Tensor) -> Tensor:
        """The scale of each block whose multiples reach the steps of its groups. The largest step
        gets the outermost whole number, which is negative.
        """
        if self._grid.scales is None:
            return self.rounded(step)
        by_block = self.by_block(step)
        low, high = by_block.amin(-1), by_block.amax(-1)
        return self.rounded(torch.where(-low > high, low, high) / self._grid.scales[0])

    def _levels(self, step: Tensor, scale: Tensor) -> Tensor:
        """Whole numbers [rows, groups] whose products with their block's scale are near steps."""
        if self._grid.scales is None:
            return torch.ones_like(step)
        return divided(step, self.along(scale)).round_().clamp_(*self._grid.scales)

    def _of_blocks(self, cc: Tensor, cx: Tensor, scales: Tensor, before: Tensor) -> Tensor:
        """The scales of blocks with the least error, for these codes and whole scales."""
        squares = self.sum(scales * scales * cc)
        found = divided(self.sum(scales * cx), squares)
        return self.rounded(torch.where(squares > 0, found, before))
