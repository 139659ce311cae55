"""Writes a 16-bit matrix in 4, 5 or 6 bits, in a grid like that of llama.cpp's Q4_K.

A scale and a minimum for each 32 inputs, which are whole numbers in 8 bits times float16 ones of
256 inputs. `fit` chooses them. The error of an input counts as much as the input is used:
`importance`, the mean of its squares in a calibration text.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields, replace
from typing import Protocol

import torch
from torch import Tensor

from llmchat.engines.transformers.quantised.fit import Fit, Moments, divided
from llmchat.engines.transformers.quantised.rows import Rows, in_rows
from llmchat.engines.transformers.quantised.types import GroupedWeight

# Numbers that are fitted together: they stay in the processor's cache.
_NUMBERS_AT_ONCE = 1 << 18
_REFINEMENTS = 3
# Scales of blocks between these have digits enough in float16.
_SMALLEST, _LARGEST = 2.0**-19, 2.0**10


class AnyGrid(Protocol):
    """What a matrix can be written in."""

    def scale_type(self, weight: Tensor) -> torch.dtype:
        """The type of a block's scale."""
        ...

    def fitted(
        self, rows: Tensor, importance: Tensor | None, numbers: torch.dtype
    ) -> GroupedWeight:
        """Some rows in the grid. numbers: the type of a block's scale."""
        ...


@dataclass(frozen=True)
class Grid:
    """bits of a code; inputs of a group and of a block; the largest scale of a group, 1 for a
    format whose groups are blocks; the type of a block's scale, None: the smaller that holds it.
    """

    bits: int
    group: int = 32
    block: int = 256
    levels: int = 255
    numbers: torch.dtype | None = None

    @property
    def top(self) -> int:
        """The largest code."""
        return (1 << self.bits) - 1

    def bytes_of(self, shape: tuple[int, ...]) -> int:
        """The size of a matrix [out, in] with float16 scales."""
        out, in_ = shape
        factors = -(-in_ // self.group) + 2 * -(-in_ // self.block)
        return out * (-(-in_ * self.bits // 8) + 2 * factors)

    def scale_type(self, weight: Tensor) -> torch.dtype:
        """float16, but where weights are too large for it, or so small that it has few digits."""
        if self.numbers:
            return self.numbers
        largest = float(weight.abs().max())
        scale = largest / (self.top * self.levels)
        is_held = _SMALLEST <= scale <= _LARGEST or not largest
        return torch.float16 if is_held else torch.float32

    def fitted(
        self, rows: Tensor, importance: Tensor | None, numbers: torch.dtype
    ) -> GroupedWeight:
        found = _GridRows(rows, importance, self, numbers).fitted()
        if self.levels > 1:
            return found
        assert found.scales is not None and found.minimum is not None and found.minima is not None
        return replace(
            found, scale=found.scale * found.scales, scales=None,
            minimum=found.minimum * found.minima, minima=None,
        )  # fmt: skip


FOUR, FIVE, SIX = Grid(4), Grid(5), Grid(6)


def quantised(weight: Tensor, importance: Tensor | None, grid: AnyGrid = FOUR) -> GroupedWeight:
    """The matrix [out, in] in a grid. importance: [in], or None where all inputs count alike.

    `in` must be whole groups. Raises IntegrityError for a weight that holds NaN or infinity.
    """
    count = max(1, _NUMBERS_AT_ONCE // weight.shape[1])
    numbers = grid.scale_type(weight)
    parts = _on_all_threads(
        lambda rows: grid.fitted(rows, importance, numbers), weight.split(count)
    )
    return _stacked(parts)


def _stacked(parts: Sequence[GroupedWeight]) -> GroupedWeight:
    """Parts of the rows as one matrix."""
    own = [field.name for field in fields(parts[0]) if field.name not in ("table", "order")]
    found = {
        name: torch.cat([getattr(part, name) for part in parts])
        for name in own
        if isinstance(getattr(parts[0], name), Tensor)
    }
    return replace(parts[0], **found)


def _on_all_threads(
    fit: Callable[[Tensor], GroupedWeight], parts: Sequence[Tensor]
) -> list[GroupedWeight]:
    """One part a thread: threads that share each small step of torch would wait for each other."""
    if len(parts) == 1:
        return [fit(parts[0])]
    count = torch.get_num_threads()
    try:
        with ThreadPoolExecutor(count, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            return list(pool.map(fit, parts))
    finally:
        torch.set_num_threads(count)


class _GridRows(Rows):
    def __init__(
        self, rows: Tensor, importance: Tensor | None, grid: Grid, numbers: torch.dtype
    ):  # fmt: skip
        super().__init__(rows, importance, (grid.group, grid.block), numbers)
        self._grid = grid
        self._fit = Fit(self.x, self.weights, grid.top)

    def fitted(self) -> GroupedWeight:
        step, low = self._fit.searched()
        scale, minimum = self._largest(step), self._largest(-low)
        for _ in range(_REFINEMENTS):
            scales, minima = self._levels(step, scale), self._levels(-low, minimum)
            moments = self._fit.moments(self._codes(scale, scales, minimum, minima))
            scale, minimum = self._of_blocks(moments, scales, minima, scale, minimum)
            step, low = moments.best()
        codes = in_rows(self._codes(scale, scales, minimum, minima))
        grid = self._grid
        return GroupedWeight(
            codes, grid.bits, grid.group, grid.block, self.stored(scale), scales.to(torch.uint8),
            self.stored(minimum), minima.to(torch.uint8),
        )  # fmt: skip

    def _codes(self, scale: Tensor, scales: Tensor, minimum: Tensor, minima: Tensor) -> Tensor:
        return self._fit.codes(self.along(scale) * scales, -self.along(minimum) * minima)

    def _largest(self, values: Tensor) -> Tensor:
        """The scale of each block [rows, blocks] whose multiples reach the values of its groups."""
        return self.rounded(self.by_block(values).abs().amax(-1) / self._grid.levels)

    def _levels(self, values: Tensor, scale: Tensor) -> Tensor:
        """Whole numbers [rows, groups] whose products with their block's scale are near values."""
        return divided(values, self.along(scale)).round_().clamp_(0, self._grid.levels)

    def _of_blocks(
        self, moments: Moments, scales: Tensor, minima: Tensor, *before: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The scales and minima of blocks with the least error, for these codes and levels."""
        cc, x = self.sum(scales * scales * moments.cc), -self.sum(minima * moments.x)
        cx, one = self.sum(scales * moments.cx), self.sum(minima * minima * moments.one)
        c = -self.sum(scales * minima * moments.c)
        determinant = cc * one - c * c
        scale = divided(cx * one - c * x, determinant)
        minimum = divided(cc * x - c * cx, determinant)
        is_valid = (scale > 0) & (minimum >= 0)
        scale = torch.where(is_valid, scale, before[0])
        return self.rounded(scale), self.rounded(torch.where(is_valid, minimum, before[1]))
