"""Random weights in groups, in the forms in which formats store them."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from llmchat.engines.transformers.quantised.types import GroupedWeight
from llmchat.engines.transformers.weights import MemoryTensors

_IQ4 = (-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113)
_FP4 = (0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12)


def grouped(
    shape: tuple[int, int],
    bits: int,
    group: int,
    block: int,
    *,
    scales: tuple[int, int] | None = None,
    minima: int | None = None,
    minimum: bool = False,
    zeros: bool = False,
    zero: int = 0,
    table: tuple[int, ...] | None = None,
    dtype: torch.dtype = torch.float16,
    order: bool = False,
) -> GroupedWeight:
    """scales: the range of the scales of groups; minima: the end of that of minima."""
    out, in_ = shape
    blocks, groups = -(-in_ // block), -(-in_ // group)

    def integers(low: int, high: int, count: int) -> Tensor:
        kind = torch.int8 if low < 0 else torch.uint8
        return torch.randint(low, high, (out, count)).to(kind)

    def numbers() -> Tensor:
        return (torch.rand(out, blocks) / 100).to(dtype).to(_stored(dtype))

    return GroupedWeight(
        integers(0, 1 << bits, in_), bits, group, block, numbers(),
        scales=integers(*scales, groups) if scales else None,
        minimum=numbers() if minimum or minima else None,
        minima=integers(0, minima, groups) if minima else None,
        zeros=integers(0, 1 << bits, blocks) if zeros else None, zero=zero,
        table=torch.tensor(table, dtype=torch.int8) if table else None,
        order=torch.randperm(in_) if order else None,
    )  # fmt: skip


def _stored(dtype: torch.dtype) -> torch.dtype:
    return torch.float32 if dtype == torch.bfloat16 else dtype


Maker = Callable[[tuple[int, int]], GroupedWeight]


def _maker(*sizes: int, **options: Any) -> Maker:
    return lambda shape: grouped(shape, *sizes, **options)


# A name → a weight of a shape, and the bits of a weight in the format's own file.
FORMATS: dict[str, tuple[Maker, float]] = {
    "Q4_0": (_maker(4, 32, 32, zero=8), 4.5),
    "Q4_1": (_maker(4, 32, 32, minimum=True), 5),
    "Q5_0": (_maker(5, 32, 32, zero=16), 5.5),
    "Q5_1": (_maker(5, 32, 32, minimum=True), 6),
    "Q8_0": (_maker(8, 32, 32, zero=128), 8.5),
    "Q2_K": (_maker(2, 16, 256, scales=(0, 16), minima=16), 2.625),
    "Q3_K": (_maker(3, 16, 256, scales=(-32, 32), zero=4), 3.4375),
    "Q4_K": (_maker(4, 32, 256, scales=(0, 64), minima=64), 4.5),
    "Q5_K": (_maker(5, 32, 256, scales=(0, 64), minima=64), 5.5),
    "Q6_K": (_maker(6, 16, 256, scales=(-128, 128), zero=32), 6.5625),
    "IQ4_NL": (_maker(4, 32, 32, table=_IQ4), 4.5),
    "IQ4_XS": (_maker(4, 32, 256, scales=(-32, 32), table=_IQ4), 4.25),
    "MXFP4": (_maker(4, 32, 32, table=_FP4, dtype=torch.bfloat16), 4.25),
    "GPTQ 2": (_maker(2, 64, 64, zeros=True), 2.28125),
    "GPTQ 3": (_maker(3, 128, 128, zeros=True), 3.1484375),
    "GPTQ 4": (_maker(4, 128, 128, zeros=True), 4.15625),
    "GPTQ 8": (_maker(8, 32, 32, zeros=True), 8.75),
    "AWQ": (_maker(4, 128, 128, zeros=True), 4.15625),
    "compressed 4": (_maker(4, 32, 32, zero=8, dtype=torch.bfloat16), 4.5),
    "rows of 4": (_maker(4, 4096, 4096, zero=8, dtype=torch.float32), 4.008),
    "groups of 16": (_maker(4, 16, 16, zero=8), 5),
    "groups of 64 in 6": (_maker(6, 64, 64, minimum=True, zeros=True), 6.625),
    "groups of 256 in 5": (_maker(5, 256, 256, minimum=True), 5.125),
}  # fmt: skip


class GroupedTensors(MemoryTensors):
    """Tensors in memory, some of them in groups."""

    def __init__(self, state: dict[str, Tensor], weights: Mapping[str, GroupedWeight]):
        numbers = {name: weight.dequantised() for name, weight in weights.items()}
        super().__init__(state | numbers)
        self.weights = weights

    def grouped(self, name: str) -> GroupedWeight | None:
        return self.weights.get(name)


def like(weight: Tensor, form: str, order: Tensor | None = None) -> GroupedWeight:
    """A random weight in a form, as large as `weight`."""
    out, in_ = weight.shape
    found = FORMATS[form][0]((out, in_))
    factor = float(weight.std() / found.dequantised().std())
    minimum = None if found.minimum is None else (found.minimum.float() * factor).half()
    scale = (found.scale.float() * factor).to(torch.bfloat16 if form == "MXFP4" else torch.half)
    return replace(found, scale=scale.to(_stored(scale.dtype)), minimum=minimum, order=order)
