"""How a KV cache stores numbers: as they are, or in 8 bits with a scale for KV_GROUP neighbours of
a head.

A row of 8 bits is its codes, then its scales in bfloat16: code = 128 + number / scale. csrc/
kv_int8.h computes the same to the bit.
"""

from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from llmchat.memory_estimate import KV_GROUP, row_bytes
from llmchat.settings.types import KvKind

_SCALE_BYTES = 2
# Below it 1 / scale would not be finite.
_LEAST = 1e-30


class CacheNumbers(Protocol):
    """dtype: of buffers; name: part of the layout of a file, "" for numbers as they are."""

    @property
    def dtype(self) -> torch.dtype: ...

    @property
    def name(self) -> str: ...

    def width(self, numbers: int) -> int:
        """The elements of a buffer that a row of so many numbers takes."""
        ...

    def stored(self, numbers: Tensor) -> Tensor:
        """[..., numbers] → [..., width]"""
        ...

    def numbers(self, stored: Tensor, count: int) -> Tensor:
        """[..., width] → [..., count], in the type of activations."""
        ...


@dataclass(frozen=True)
class PlainNumbers:
    """Numbers in the type of activations."""

    dtype: torch.dtype
    name = ""

    def width(self, numbers: int) -> int:
        return numbers

    def stored(self, numbers: Tensor) -> Tensor:
        return numbers

    def numbers(self, stored: Tensor, count: int) -> Tensor:
        return stored


@dataclass(frozen=True)
class Int8Numbers:
    """activations: their type."""

    activations: torch.dtype
    dtype = torch.uint8
    name = f" int8 in groups of {KV_GROUP}"

    def width(self, numbers: int) -> int:
        return row_bytes(numbers, "int8")

    def stored(self, numbers: Tensor) -> Tensor:
        grouped = _grouped(numbers.float())
        scale = (grouped.abs().amax(-1, keepdim=True) / 127).bfloat16()
        step = scale.float()
        inverse = torch.where(step >= _LEAST, 1 / step, 0)
        codes = (grouped * inverse).clamp(-127, 127).round().add(128).to(torch.uint8)
        codes = codes.flatten(-2)[..., : numbers.shape[-1]]
        return torch.cat((codes, scale.squeeze(-1).view(torch.uint8)), -1)

    def numbers(self, stored: Tensor, count: int) -> Tensor:
        codes, scales = stored[..., :count], stored[..., count:].contiguous()
        values = _grouped(codes.float() - 128) * scales.view(torch.bfloat16).float()[..., None]
        return values.flatten(-2)[..., :count].to(self.activations)


def numbers_of(kind: KvKind, activations: torch.dtype) -> CacheNumbers:
    """How a cache of this kind stores them."""
    return Int8Numbers(activations) if kind == "int8" else PlainNumbers(activations)


def codes_of(width: int) -> int:
    """The codes in a row of `width` bytes; the others are scales."""
    return width - _SCALE_BYTES * -(-width // (KV_GROUP + _SCALE_BYTES))


def _grouped(x: Tensor) -> Tensor:
    """[..., width] → [..., groups, KV_GROUP], padded with zeros."""
    return F.pad(x, (0, -x.shape[-1] % KV_GROUP)).unflatten(-1, (-1, KV_GROUP))
