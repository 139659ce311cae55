"""A matrix in few bits, whatever format stored it."""

from collections.abc import Callable
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor


@dataclass(frozen=True)
class GroupedWeight:
    """A matrix [out, in], whose inputs share scales in groups. `value` of output o and input i is

        scale[o, i // block] * scales[o, i // group] * (code[o, i] - zeros[o, i // block] - zero)
        - minimum[o, i // block] * minima[o, i // group]

    codes: uint8 [out, in], each below 2 ** bits. scale, minimum: float16 or float32
    [out, blocks]. scales: int8 or uint8, minima: uint8, both [out, groups]; zeros: uint8
    [out, blocks]. What is None is 1 as a factor (scales, minima), 0 as a term (minimum, zeros).
    table: int8 [2 ** bits], whose number takes the place of the code. order: int64 [in]; column c
    of everything above is input order[c]. None: as they are. The last block may be short.
    """

    codes: Tensor
    bits: int
    group: int
    block: int
    scale: Tensor
    scales: Tensor | None = None
    minimum: Tensor | None = None
    minima: Tensor | None = None
    zeros: Tensor | None = None
    zero: int = 0
    table: Tensor | None = None
    order: Tensor | None = None

    @property
    def shape(self) -> tuple[int, int]:
        out, in_ = self.codes.shape
        return out, in_

    def map(self, change: Callable[[Tensor], Tensor]) -> "GroupedWeight":
        """The same with other tensors."""
        own = {field.name: getattr(self, field.name) for field in fields(self)}
        return replace(
            self, **{name: change(one) for name, one in own.items() if isinstance(one, Tensor)}
        )

    def rows(self, first: int, count: int) -> "GroupedWeight":
        """Some rows of it."""
        if count == len(self.codes):
            return self
        cut = replace(self, table=None, order=None).map(lambda one: one[first : first + count])
        return replace(cut, table=self.table, order=self.order)

    def dequantised(self) -> Tensor:
        """float32 [out, in]; products are rounded as in the formula of the class."""
        factor = self._along(self.scale.float(), self.block)
        if self.scales is not None:
            factor = factor * self._along(self.scales.float(), self.group)
        values = factor * self._numbers()
        if self.minimum is not None:
            term = self._along(self.minimum.float(), self.block)
            if self.minima is not None:
                term = term * self._along(self.minima.float(), self.group)
            values = values - term
        if self.order is None:
            return values
        return torch.empty_like(values).index_copy_(1, self.order, values)

    def _numbers(self) -> Tensor:
        if self.table is not None:
            return self.table[self.codes.long()].float()
        numbers = self.codes.float() - self.zero
        if self.zeros is not None:
            numbers = numbers - self._along(self.zeros.float(), self.block)
        return numbers

    def _along(self, values: Tensor, length: int) -> Tensor:
        """A value for each input, from one for `length` of them."""
        return values.repeat_interleave(length, 1)[:, : self.codes.shape[1]]


@dataclass(frozen=True)
class PackedWeight:
    """A matrix [out, in] in the layout of the compiled step, which may be mapped from a file.

    kind: a name that packed.kind_named reads. data: uint8, flat. order: as in GroupedWeight.
    """

    kind: str
    data: Tensor
    shape: tuple[int, int]
    order: Tensor | None = None
