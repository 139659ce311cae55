"""Writes a 16-bit matrix in 4, 5 or 6 bits, in a grid like that of llama.cpp's Q4_K.

A scale and a minimum for each 32 inputs, which are whole numbers in 8 bits times float16 ones of
256 inputs. `fit` chooses them. The error of an input counts as much as the input is used:
`importance`, the mean of its squares in a calibration text.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import pad

from llmchat.engines.transformers.pytorch.int8 import finite
from llmchat.engines.transformers.quantised.fit import Fit, Moments, divided
from llmchat.engines.transformers.quantised.types import GroupedWeight

# Numbers that are fitted together: they stay in the processor's cache.
_NUMBERS_AT_ONCE = 1 << 18
_REFINEMENTS = 3
# An input that the calibration text hardly uses counts as if it had this fraction of the mean.
_LEAST_USED, _NOTHING = 1e-3, 1e-30
# Scales of blocks between these have digits enough in float16.
_SMALLEST, _LARGEST = 2.0**-19, 2.0**10


@dataclass(frozen=True)
class Grid:
    """bits of a code; inputs of a group and of a block; the largest scale of a group."""

    bits: int
    group: int = 32
    block: int = 256
    levels: int = 255

    @property
    def top(self) -> int:
        """The largest code."""
        return (1 << self.bits) - 1

    def bytes_of(self, shape: tuple[int, ...]) -> int:
        """The size of a matrix [out, in] with float16 scales."""
        out, in_ = shape
        factors = -(-in_ // self.group) + 2 * -(-in_ // self.block)
        return out * (-(-in_ * self.bits // 8) + 2 * factors)


FOUR, FIVE, SIX = Grid(4), Grid(5), Grid(6)


def quantised(weight: Tensor, importance: Tensor | None, grid: Grid = FOUR) -> GroupedWeight:
    """The matrix [out, in] in a grid. importance: [in], or None where all inputs count alike.

    `in` must be whole groups. Raises IntegrityError for a weight that holds NaN or infinity.
    """
    count = max(1, _NUMBERS_AT_ONCE // weight.shape[1])
    numbers = _scale_type(weight, grid)
    parts = _on_all_threads(
        lambda rows: _Rows(rows, importance, grid, numbers).fitted(), weight.split(count)
    )
    codes, scale, scales, minimum, minima = (torch.cat(part) for part in zip(*parts, strict=True))
    return GroupedWeight(
        codes, grid.bits, grid.group, grid.block, scale, scales, minimum, minima
    )  # fmt: skip


def _on_all_threads(
    fit: Callable[[Tensor], tuple[Tensor, ...]], parts: Sequence[Tensor]
) -> list[tuple[Tensor, ...]]:
    """One part a thread: threads that share each small step of torch would wait for each other."""
    if len(parts) == 1:
        return [fit(parts[0])]
    count = torch.get_num_threads()
    try:
        with ThreadPoolExecutor(count, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            return list(pool.map(fit, parts))
    finally:
        torch.set_num_threads(count)


def _scale_type(weight: Tensor, grid: Grid) -> torch.dtype:
    """float16, but where weights are too large for it, or so small that it has few digits."""
    largest = float(weight.abs().max())
    scale = largest / (grid.top * grid.levels)
    return torch.float16 if _SMALLEST <= scale <= _LARGEST or not largest else torch.float32


class _Rows:
    """Some rows of a matrix. numbers: the type of a block's scale."""

    def __init__(
        self, rows: Tensor, importance: Tensor | None, grid: Grid, numbers: torch.dtype
    ):  # fmt: skip
        self._grid, self._numbers = grid, numbers
        self._per_block = grid.block // grid.group
        groups = (rows.shape[0], rows.shape[1] // grid.group, grid.group)
        x = finite(rows.float(), "a weight").view(groups).permute(2, 0, 1).contiguous()
        weights = _weights(x, importance)
        self._fit = Fit(x, weights, grid.top)

    def fitted(self) -> tuple[Tensor, ...]:
        """codes, scale, scales, minimum and minima of GroupedWeight."""
        step, low = self._fit.searched()
        scale, minimum = self._largest(step), self._largest(-low)
        for _ in range(_REFINEMENTS):
            scales, minima = self._levels(step, scale), self._levels(-low, minimum)
            moments = self._fit.moments(self._codes(scale, scales, minimum, minima))
            scale, minimum = self._of_blocks(moments, scales, minima, scale, minimum)
            step, low = moments.best()
        codes = self._codes(scale, scales, minimum, minima)
        codes = codes.permute(1, 2, 0).flatten(1).to(torch.uint8)
        scale, minimum = scale.to(self._numbers), minimum.to(self._numbers)
        return codes, scale, scales.to(torch.uint8), minimum, minima.to(torch.uint8)

    def _codes(self, scale: Tensor, scales: Tensor, minimum: Tensor, minima: Tensor) -> Tensor:
        return self._fit.codes(self._along(scale) * scales, -self._along(minimum) * minima)

    def _largest(self, values: Tensor) -> Tensor:
        """The scale of each block [rows, blocks] whose multiples reach the values of its groups."""
        return self._rounded(self._by_block(values).abs().amax(-1) / self._grid.levels)

    def _levels(self, values: Tensor, scale: Tensor) -> Tensor:
        """Whole numbers [rows, groups] whose products with their block's scale are near values."""
        return divided(values, self._along(scale)).round_().clamp_(0, self._grid.levels)

    def _of_blocks(
        self, moments: Moments, scales: Tensor, minima: Tensor, *before: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The scales and minima of blocks with the least error, for these codes and levels."""
        cc, x = self._sum(scales * scales * moments.cc), -self._sum(minima * moments.x)
        cx, one = self._sum(scales * moments.cx), self._sum(minima * minima * moments.one)
        c = -self._sum(scales * minima * moments.c)
        determinant = cc * one - c * c
        scale = divided(cx * one - c * x, determinant)
        minimum = divided(cc * x - c * cx, determinant)
        is_valid = (scale > 0) & (minimum >= 0)
        scale = torch.where(is_valid, scale, before[0])
        return self._rounded(scale), self._rounded(torch.where(is_valid, minimum, before[1]))

    def _rounded(self, values: Tensor) -> Tensor:
        return values.to(self._numbers).float()

    def _sum(self, values: Tensor) -> Tensor:
        return self._by_block(values).sum(-1)

    def _by_block(self, values: Tensor) -> Tensor:
        """[rows, groups] → [rows, blocks, groups of a block], filled up with zeros."""
        missing = -values.shape[1] % self._per_block
        return pad(values, (0, missing)).unflatten(1, (-1, self._per_block))

    def _along(self, values: Tensor) -> Tensor:
        """[rows, blocks] → [rows, groups]"""
        return values.repeat_interleave(self._per_block, 1)[:, : self._fit.groups]


def _weights(x: Tensor, importance: Tensor | None) -> Tensor:
    """How much an error counts, for each number of groups; large numbers count more where the
    importance is unknown.
    """
    if importance is None:
        return x.square().mean(0).sqrt() + x.abs()
    used = importance.float()
    used = (used / used.mean().clamp_min(_NOTHING)).clamp_min(_LEAST_USED)
    return used.view(x.shape[2], x.shape[0]).T[:, None].expand_as(x)
