"""The tensors of a GGUF file: bytes of a block type become a GroupedWeight, without a rounding.

The layouts are those of ggml-common.h and ggml-quants.c (llama.cpp). Dequantised values equal those
of gguf-py to the bit.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from llmchat.engines.transformers.quantised.types import GroupedWeight
from llmchat.errors import Mismatch
from llmchat.gguf_file import GgmlType

_PLAIN = {
    "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16, "F64": torch.float64,
    "I8": torch.int8, "I16": torch.int16, "I32": torch.int32, "I64": torch.int64,
}  # fmt: skip
# IQ4_NL and IQ4_XS, and twice the values of E2M1 (MXFP4).
IQ4 = (-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113)
E2M1 = (0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12)


def grouped(kind: GgmlType, rows: Tensor) -> GroupedWeight | None:
    """A matrix in groups. rows: its bytes, uint8 [out, bytes of a row]; None for a type that is
    not stored in groups.
    """
    maker = _MAKERS.get(kind.name)
    return maker(rows.view(rows.shape[0], -1, kind.bytes)) if maker else None


def plain(kind: GgmlType, data: Tensor, shape: tuple[int, ...]) -> Tensor:
    """The values of a tensor. data: its bytes, uint8.

    Raises Mismatch for a type that has no values here.
    """
    if dtype := _PLAIN.get(kind.name):
        return _aligned(data, dtype).view(shape)
    if kind.name in _MAKERS:
        weight = grouped(kind, data.view(-1, shape[-1] // kind.block * kind.bytes))
        assert weight is not None
        return weight.dequantised().view(shape)
    return _by_reference(kind, data).view(shape)


def has_groups(kind: GgmlType) -> bool:
    return kind.name in _MAKERS


def _aligned(data: Tensor, dtype: torch.dtype) -> Tensor:
    flat = data.reshape(-1)
    if flat.data_ptr() % dtype.itemsize:
        flat = flat.clone()
    return flat.view(dtype)


def _by_reference(kind: GgmlType, data: Tensor) -> Tensor:
    """Types of lattices and ternary digits (IQ1 to IQ3, TQ1), by gguf-py."""
    import gguf

    try:
        number = gguf.GGMLQuantizationType[kind.name]
        values = gguf.quants.dequantize(data.view(-1, kind.bytes).numpy(), number)
    except (KeyError, NotImplementedError) as error:
        raise Mismatch(
            f"tensors of the type {kind.name} are not supported",
            "pull a file of another quantisation, such as Q4_K_M",
        ) from error
    return torch.from_numpy(values)


def _q4_0(blocks: Tensor) -> GroupedWeight:
    return _simple(_nibbles(blocks[..., 2:], 16), 4, _half(blocks, 0), zero=8)


def _q4_1(blocks: Tensor) -> GroupedWeight:
    return _simple(_nibbles(blocks[..., 4:], 16), 4, _half(blocks, 0), minimum=-_half(blocks, 2))


def _q5_0(blocks: Tensor) -> GroupedWeight:
    codes = _nibbles(blocks[..., 6:], 16) | _fifth_bits(blocks[..., 2:6])
    return _simple(codes, 5, _half(blocks, 0), zero=16)


def _q5_1(blocks: Tensor) -> GroupedWeight:
    codes = _nibbles(blocks[..., 8:], 16) | _fifth_bits(blocks[..., 4:8])
    return _simple(codes, 5, _half(blocks, 0), minimum=-_half(blocks, 2))


def _q8_0(blocks: Tensor) -> GroupedWeight:
    codes = (blocks[..., 2:] ^ 128).flatten(1)
    return _simple(codes, 8, _half(blocks, 0), zero=128)


def _iq4_nl(blocks: Tensor) -> GroupedWeight:
    return _simple(_nibbles(blocks[..., 2:], 16), 4, _half(blocks, 0), table=_table(IQ4))


def _mxfp4(blocks: Tensor) -> GroupedWeight:
    """Scales are powers of two; half of each, since the table has twice the values."""
    codes, power = _nibbles(blocks[..., 1:], 16), blocks[..., 0].to(torch.int32)
    bits = torch.where(power < 2, 0x00200000 << power.clamp(max=1), (power - 1) << 23)
    return _simple(codes, 4, bits.view(torch.float32), table=_table(E2M1))


def _q2_k(blocks: Tensor) -> GroupedWeight:
    scales = blocks[..., :16]
    return _super(
        _spread(blocks[..., 16:80], 32, (0, 2, 4, 6), 3), 2, 16, _half(blocks, 80),
        scales=(scales & 15).flatten(1), minimum=_half(blocks, 82), minima=(scales >> 4).flatten(1),
    )  # fmt: skip


def _q3_k(blocks: Tensor) -> GroupedWeight:
    """Two bits, and one whose absence takes off 4: codes are 4 higher."""
    low = _spread(blocks[..., 32:96], 32, (0, 2, 4, 6), 3)
    high = _spread(blocks[..., :32], 32, tuple(range(8)), 1)
    packed, tops = blocks[..., 96:104], blocks[..., 104:108]
    lows = torch.cat([packed & 15, packed >> 4], -1)
    highs = torch.cat([(tops >> shift) & 3 for shift in (0, 2, 4, 6)], -1)
    scales = (lows | (highs << 4)).to(torch.int8) - 32
    return _super(
        low | (high << 2), 3, 16, _half(blocks, 108), scales=scales.flatten(1), zero=4
    )  # fmt: skip


def _q4_k(blocks: Tensor) -> GroupedWeight:
    return _with_minima(blocks, _spread(blocks[..., 16:], 32, (0, 4), 15), 4)


def _q5_k(blocks: Tensor) -> GroupedWeight:
    high = _spread(blocks[..., 16:48], 32, tuple(range(8)), 1)
    return _with_minima(blocks, _spread(blocks[..., 48:], 32, (0, 4), 15) | (high << 4), 5)


def _with_minima(blocks: Tensor, codes: Tensor, bits: int) -> GroupedWeight:
    """Q4_K and Q5_K: eight scales and minima of 6 bits are in 12 bytes."""
    first, second, third = blocks[..., 4:8], blocks[..., 8:12], blocks[..., 12:16]
    scales = torch.cat([first & 63, (third & 15) | ((first >> 2) & 48)], -1)
    minima = torch.cat([second & 63, (third >> 4) | ((second >> 2) & 48)], -1)
    return _super(
        codes, bits, 32, _half(blocks, 0), scales=scales.flatten(1),
        minimum=_half(blocks, 2), minima=minima.flatten(1),
    )  # fmt: skip


def _q6_k(blocks: Tensor) -> GroupedWeight:
    low = _spread(blocks[..., :128], 64, (0, 4), 15)
    high = _spread(blocks[..., 128:192], 32, (0, 2, 4, 6), 3)
    scales = blocks[..., 192:208].flatten(1).view(torch.int8)
    return _super(low | (high << 4), 6, 16, _half(blocks, 208), scales=scales, zero=32)


def _iq4_xs(blocks: Tensor) -> GroupedWeight:
    tops = blocks[..., 2:4]
    highs = torch.stack([(tops >> shift) & 3 for shift in (0, 2, 4, 6)], -1).flatten(-2)
    packed = blocks[..., 4:8]
    lows = torch.stack([packed & 15, packed >> 4], -1).flatten(-2)
    scales = (lows | (highs << 4)).to(torch.int8) - 32
    codes = _spread(blocks[..., 8:], 16, (0, 4), 15)
    return _super(codes, 4, 32, _half(blocks, 0), scales=scales.flatten(1), table=_table(IQ4))


def _tq2_0(blocks: Tensor) -> GroupedWeight:
    codes = _spread(blocks[..., :64], 32, (0, 2, 4, 6), 3)
    return _super(codes, 2, 256, _half(blocks, 64), zero=1)


def _simple(codes: Tensor, bits: int, scale: Tensor, **more: Any) -> GroupedWeight:
    """A format with one scale for 32 inputs."""
    return GroupedWeight(codes, bits, 32, 32, scale, **more)


def _super(codes: Tensor, bits: int, group: int, scale: Tensor, **more: Any) -> GroupedWeight:
    """A format of blocks of 256 inputs, whose groups have scales of few bits."""
    return GroupedWeight(codes, bits, group, 256, scale, **more)


def _nibbles(packed: Tensor, run: int) -> Tensor:
    return _spread(packed, run, (0, 4), 15)


def _spread(packed: Tensor, run: int, shifts: tuple[int, ...], mask: int) -> Tensor:
    """Codes [out, in] from bytes [out, blocks, bytes]: of each `run` of bytes first the bits at the
    first shift, then those at the next one.
    """
    # Eight bytes at a time. Bits that a shift brings from the next byte are not in the mask.
    words = _copied(packed).view(torch.int64).unflatten(-1, (-1, run // 8))
    eight = int.from_bytes(bytes([mask] * 8), "little", signed=True)
    parts = [((words >> shift) if shift else words) & eight for shift in shifts]
    return torch.stack(parts, -2).view(torch.uint8).flatten(1)


def _fifth_bits(packed: Tensor) -> Tensor:
    """Bit i of 4 bytes belongs to code i of a block of 32, as its fifth bit."""
    return _FIFTH_BITS[packed.long()].view(torch.uint8).flatten(1)


def _fifth_bits_of_bytes() -> Tensor:
    """int64 [256]: for each byte, eight codes of which only the fifth bit is set."""
    each = torch.arange(256, dtype=torch.uint8)[:, None]
    codes = ((each >> torch.arange(8, dtype=torch.uint8)) & 1) << 4
    return codes.view(torch.int64).flatten()


def _half(blocks: Tensor, at: int) -> Tensor:
    """A number of 16 bits of each block: float16 [out, blocks]."""
    return _copied(blocks[..., at : at + 2]).view(torch.float16)[..., 0]


def _copied(data: Tensor) -> Tensor:
    """Aligned for every type, as `contiguous` alone is not: a block alone is contiguous already."""
    return data.clone(memory_format=torch.contiguous_format)


def _table(values: tuple[int, ...]) -> Tensor:
    return torch.tensor(values, dtype=torch.int8)


_FIFTH_BITS = _fifth_bits_of_bytes()
_MAKERS: dict[str, Callable[[Tensor], GroupedWeight]] = {
    "Q4_0": _q4_0, "Q4_1": _q4_1, "Q5_0": _q5_0, "Q5_1": _q5_1, "Q8_0": _q8_0,
    "Q2_K": _q2_k, "Q3_K": _q3_k, "Q4_K": _q4_k, "Q5_K": _q5_k, "Q6_K": _q6_k,
    "IQ4_NL": _iq4_nl, "IQ4_XS": _iq4_xs, "MXFP4": _mxfp4, "TQ2_0": _tq2_0,
}  # fmt: skip
