"""The bytes of GGUF blocks from a GroupedWeight: gguf_types.py turned round, without a rounding.

The layouts are those of ggml-common.h and ggml-quants.c (llama.cpp).
"""

from collections.abc import Callable

import torch
from torch import Tensor

from llmchat.engines.transformers.quantised.gguf_types import E2M1, IQ4
from llmchat.engines.transformers.quantised.types import GroupedWeight
from llmchat.gguf_file import GgmlType


class Layout:
    """What the blocks of a type hold. scales: the range of the whole scales of groups, and has the
    type minima; None for a type with one scale a block.
    """

    def __init__(
        self,
        bits: int,
        group: int = 32,
        zero: int = 0,
        scales: tuple[int, int] | None = None,
        has_minimum: bool = False,
        table: tuple[int, ...] | None = None,
    ):
        self.bits, self.group, self.zero, self.scales = bits, group, zero, scales
        self.block = 32 if scales is None else 256
        self.has_minimum, self.table = has_minimum, table

    def holds(self, weight: GroupedWeight) -> bool:
        """Whether blocks of the type have room for every number of a weight as it is."""
        alike = (weight.bits, weight.group, weight.block, weight.zero) == (
            self.bits, self.group, self.block, self.zero,
        )  # fmt: skip
        return (
            alike
            and weight.zeros is None
            and weight.order is None
            and weight.shape[1] % self.block == 0
            and self._has_table(weight)
            and (weight.minimum is not None) == self.has_minimum
            and _is_half(weight.minimum)
            and self._has_scales(weight)
        )

    def _has_table(self, weight: GroupedWeight) -> bool:
        if weight.table is None or self.table is None:
            return (weight.table is None) == (self.table is None)
        return tuple(weight.table.tolist()) == self.table

    def _has_scales(self, weight: GroupedWeight) -> bool:
        if not (self._has_power(weight.scale) if self.has_powers else _is_half(weight.scale)):
            return False
        if self.scales is None or weight.scales is None:
            return self.scales is None and weight.scales is None and weight.minima is None
        least, most = self.scales
        if int(weight.scales.min()) < least or int(weight.scales.max()) > most:
            return False
        if weight.minima is None:
            return not self.has_minimum
        return self.has_minimum and int(weight.minima.max()) <= most

    @property
    def has_powers(self) -> bool:
        """Whether scales are powers of two."""
        return self.table == E2M1

    def _has_power(self, scale: Tensor) -> bool:
        numbers = scale.float()
        return bool((torch.frexp(numbers)[0] == 0.5).all()) and float(numbers.min()) >= 2.0**-128


def _is_half(values: Tensor | None) -> bool:
    return values is None or values.dtype == torch.float16


LAYOUTS = {
    "Q4_0": Layout(4, zero=8),
    "Q4_1": Layout(4, has_minimum=True),
    "Q5_0": Layout(5, zero=16),
    "Q5_1": Layout(5, has_minimum=True),
    "Q8_0": Layout(8, zero=128),
    "Q2_K": Layout(2, 16, scales=(0, 15), has_minimum=True),
    "Q3_K": Layout(3, 16, zero=4, scales=(-32, 31)),
    "Q4_K": Layout(4, scales=(0, 63), has_minimum=True),
    "Q5_K": Layout(5, scales=(0, 63), has_minimum=True),
    "Q6_K": Layout(6, 16, zero=32, scales=(-128, 127)),
    "IQ4_NL": Layout(4, table=IQ4),
    "IQ4_XS": Layout(4, scales=(-32, 31), table=IQ4),
    "MXFP4": Layout(4, table=E2M1),
}


def blocks_of(kind: GgmlType, weight: GroupedWeight) -> Tensor:
    """The bytes of a weight that the layout of a type holds: uint8 [out, bytes of a row]."""
    out, in_ = weight.shape
    codes = weight.codes.view(out, in_ // kind.block, kind.block)
    return torch.cat(_PARTS[kind.name](codes, weight), -1).flatten(1)


def _q4_0(codes: Tensor, weight: GroupedWeight) -> list[Tensor]:
    return [_half(weight.scale), _nibbles(codes, 16)]


def _q4_1(codes: Tensor, weight: GroupedWeight) -> list[Tensor]:
    return [_half(weight.scale), _negated(weight.minimum), _nibbles(codes, 16)]


def _q5_0(codes: Tensor, weight: GroupedWeight) -> list[Tensor]:
    return [_half(weight.scale), _fifth_bits(codes), _nibbles(codes & 15, 16)]


def _q5_1(codes: Tensor, weight: GroupedWeight) -> list[Tensor]:
    halves = [_half(weight.scale), _negated(weight.minimum)]
    return [*halves, _fifth_bits(codes), _nibbles(codes & 15, 16)]


def _q8_0(codes: Tensor, weight: GroupedWeight) -> list[Tensor]:
    return [_half(weight.scale), codes ^ 128]


def _mxfp4(codes: Tensor, weight: GroupedWeight) -> list[Tensor]:
    """A scale is half of 2 ** (byte - 127); the two least are no normal numbers."""
    bits = weight.scale.float().contiguous().view(torch.int32)
    power = torch.where(bits < 0x00800000, bits >> 22, (bits >> 23) + 1)
    return [power.to(torch.uint8)[..., None], _nibbles(codes, 16)]


def _q2_k(codes: Tensor, weight: GroupedWeight) -> list[Tensor]:
    scales, minima = _of_groups(weight.scales, 16), _of_groups(weight.minima, 16)
    halves = [_half(weight.scale), _half(weight.minimum)]
    return [scales | (minima << 4), _joined(codes, 32, (0, 2, 4, 6)), *halves]


def _q3_k(codes: Tensor, weight: GroupedWeight) -> list[Tensor]:
    scales = _raised(weight, 16)
    lows = (scales[..., :8] & 15) | ((scales[..., 8:] & 15) << 4)
    tops = _joined(scales >> 4, 4, (0, 2, 4, 6))
    high = _joined(codes >> 2, 32, tuple(range(8)))
    return [high, _joined(codes & 3, 32, (0, 2, 4, 6)), lows, tops, _half(weight.scale)]


def _q4_k(codes: Tensor, weight: GroupedWeight) -> list[Tensor]:
    return [*_with_minima(weight), _joined(codes, 32, (0, 4))]


def _q5_k(codes: Tensor, weight: GroupedWeight) -> list[Tensor]:
    high = _joined(codes >> 4, 32, tuple(range(8)))
    return [*_with_minima(weight), high, _joined(codes & 15, 32, (0, 4))]


def _with_minima(weight: GroupedWeight) -> list[Tensor]:
    """Q4_K and Q5_K: eight scales and minima of 6 bits in 12 bytes."""
    scales, minima = _of_groups(weight.scales, 8), _of_groups(weight.minima, 8)
    first = scales[..., :4] | ((scales[..., 4:] >> 4) << 6)
    second = minima[..., :4] | ((minima[..., 4:] >> 4) << 6)
    third = (scales[..., 4:] & 15) | ((minima[..., 4:] & 15) << 4)
    return [_half(weight.scale), _half(weight.minimum), first, second, third]


def _q6_k(codes: Tensor, weight: GroupedWeight) -> list[Tensor]:
    low, high = _joined(codes & 15, 64, (0, 4)), _joined(codes >> 4, 32, (0, 2, 4, 6))
    assert weight.scales is not None
    scales = _of_groups(weight.scales.contiguous().view(torch.uint8), 16)
    return [low, high, scales, _half(weight.scale)]


def _iq4_xs(codes: Tensor, weight: GroupedWeight) -> list[Tensor]:
    scales = _raised(weight, 8)
    tops, lows = _joined_pairs(scales >> 4, 4, 2), _joined_pairs(scales & 15, 2, 4)
    return [_half(weight.scale), tops, lows, _joined(codes, 16, (0, 4))]


def _nibbles(codes: Tensor, run: int) -> Tensor:
    return _joined(codes, run, (0, 4))


def _joined(codes: Tensor, run: int, shifts: tuple[int, ...]) -> Tensor:
    """Bytes [out, blocks, bytes] from codes [out, blocks, codes]: `run` codes at the first shift,
    then as many at the next one.
    """
    runs = codes.unflatten(-1, (-1, len(shifts), run))
    out = runs[..., 0, :] << shifts[0]
    for index, shift in enumerate(shifts[1:], 1):
        out = out | (runs[..., index, :] << shift)
    return out.flatten(-2)


def _joined_pairs(codes: Tensor, count: int, bits: int) -> Tensor:
    """`count` codes that lie side by side in a byte, the first one lowest."""
    return _joined(codes, 1, tuple(range(0, count * bits, bits)))


def _fifth_bits(codes: Tensor) -> Tensor:
    """Bit i of 4 bytes is the fifth bit of code i of a block of 32."""
    return _joined_pairs(codes >> 4, 8, 1)


def _half(values: Tensor | None) -> Tensor:
    """The bytes of a number of 16 bits of each block: uint8 [out, blocks, 2]."""
    assert values is not None
    return values[..., None].contiguous().view(torch.uint8)


def _negated(minimum: Tensor | None) -> Tensor:
    assert minimum is not None
    return _half(-minimum)


def _of_groups(values: Tensor | None, count: int) -> Tensor:
    """[out, groups] → [out, blocks, groups of a block]"""
    assert values is not None
    return values.unflatten(1, (-1, count))


def _raised(weight: GroupedWeight, count: int) -> Tensor:
    """Scales of 6 bits and their sign, 32 higher."""
    assert weight.scales is not None
    return _of_groups((weight.scales + 32).to(torch.uint8), count)


_PARTS: dict[str, Callable[[Tensor, GroupedWeight], list[Tensor]]] = {
    "Q4_0": _q4_0, "Q4_1": _q4_1, "Q5_0": _q5_0, "Q5_1": _q5_1, "Q8_0": _q8_0,
    "Q2_K": _q2_k, "Q3_K": _q3_k, "Q4_K": _q4_k, "Q5_K": _q5_k, "Q6_K": _q6_k,
    "IQ4_NL": _q4_0, "IQ4_XS": _iq4_xs, "MXFP4": _mxfp4,
}  # fmt: skip
