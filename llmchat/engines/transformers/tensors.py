"""What an executor reads a checkpoint through: named tensors, some of them in few bits."""

from typing import Protocol

from torch import Tensor

from llmchat.engines.transformers.quantised.types import GroupedWeight, PackedWeight


class Tensors(Protocol):
    """Named tensors, some of which can be 8-bit already.

    untied: head and embedding differ although the base's config.json ties them, see tied_heads.
    """

    shapes: dict[str, tuple[int, ...]]

    @property
    def untied(self) -> bool: ...

    def get(self, name: str) -> Tensor: ...

    def int8(self, *names: str) -> tuple[Tensor, Tensor] | None:
        """A weight as int8 [out, in] and SCB float32 [out], W ≈ int8 * SCB / 127, mapped from its
        file; several names are stacked along the rows.

        None if one of them is not stored like this.
        """
        ...

    def head_int8(self) -> tuple[Tensor, Tensor] | None:
        """The prepared 8-bit copy of the output head, tied or not; None without one."""
        ...

    def grouped(self, name: str) -> GroupedWeight | None:
        """A weight as its file stores it in groups of few bits; None for any other."""
        ...

    def packed(self, name: str) -> PackedWeight | None:
        """A weight that a prepared copy holds in the layout of the compiled step."""
        ...

    def stored_size(self, name: str) -> int | None:
        """Bytes in the files of a weight that keeps its numbers, see `grouped`; None for others."""
        ...


class UngroupedTensors:
    """The grouped part of Tensors for a source without weights in groups."""

    def grouped(self, name: str) -> GroupedWeight | None:
        return None

    def packed(self, name: str) -> PackedWeight | None:
        return None

    def stored_size(self, name: str) -> int | None:
        return None


class FloatTensors(UngroupedTensors):
    """The quantised part of Tensors for a source without quantised tensors."""

    untied: bool = False

    def int8(self, *names: str) -> tuple[Tensor, Tensor] | None:
        return None

    def head_int8(self) -> tuple[Tensor, Tensor] | None:
        return None
