"""What a checkpoint keeps in few bits, as the headers of its files tell."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import prod
from typing import NamedTuple

Shapes = dict[str, tuple[int, ...]]
# Bytes of a small tensor; None where only headers are read.
ReadSmall = Callable[[str], bytes] | None
# Bits of a number, by its type in a safetensors header.
BITS = {
    "F64": 64, "I64": 64, "U64": 64, "F32": 32, "I32": 32, "U32": 32,
    "F16": 16, "BF16": 16, "I16": 16, "U16": 16, "I8": 8, "U8": 8, "BOOL": 8,
    "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8,
}  # fmt: skip


class Fact(NamedTuple):
    """Type, in the words of safetensors, and shape of a stored tensor."""

    dtype: str
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        """Its bytes."""
        return prod(self.shape) * BITS.get(self.dtype, 8) // 8


Facts = Mapping[str, Fact]


@dataclass(frozen=True)
class StoredWeight:
    """A weight that files keep in few bits.

    form: the reader in engines/transformers/quantised that understands it. kind: for people, such
    as "GPTQ 4-bit". shape: of the weight. parts: role → name of a tensor. size: bytes of its parts.
    bits: of a code. block: the rows and inputs that share a scale. variant: what differs within a
    form. rows: start and step of its rows in a stack, of which it is matrix `index`.
    """

    form: str
    kind: str
    shape: tuple[int, ...]
    parts: Mapping[str, str]
    size: int
    bits: int
    block: tuple[int, int] = (0, 0)
    variant: str = ""
    index: int | None = None
    rows: tuple[int, int] = (0, 1)

    @property
    def is_grid(self) -> bool:
        """Whether its values are integers times scales that the compiled step can use."""
        group, in_ = self.block[1], self.shape[-1]
        is_grid = self.form not in ("floats", "bitsandbytes") and self.bits != 7
        return is_grid and (group >= in_ or group % 16 == 0)
