"""What csrc/latent.h multiplies queries and sums with: parts of a weight, for each head."""

from dataclasses import replace
from typing import Protocol

from torch import Tensor

from llmchat.engines.transformers.compiled.structs import Matrix, TensorRefs
from llmchat.engines.transformers.families.blocks import LatentAttention, Linear, Rotary
from llmchat.engines.transformers.pytorch.int8 import quantise_rows


class Makers(Protocol):
    """What a BlockLoader makes for all kinds of blocks."""

    def int8(self, linear: Linear) -> tuple[Tensor, Tensor]: ...


class LatentParts:
    """Parts of the latent attention of one model."""

    def __init__(self, refs: TensorRefs, makers: Makers):
        self._refs, self._makers = refs, makers
        self._moved: dict[int, Rotary] = {}

    def rotary(self, block: LatentAttention) -> Rotary:
        """Its rotary embedding, of the numbers behind the latent ones; one for all blocks."""
        moved = replace(block.rotary, first=block.latent)
        return self._moved.setdefault(id(block.rotary), moved)

    def matrices(self, block: LatentAttention) -> tuple[int, int]:
        """Arrays of the parts of `up`: back to latent numbers, and from these to values.

        The first are quantised once more, because their rows are columns of the weight.
        """
        weight, scb = self._makers.int8(block.up)
        back, values, each = [], [], block.plain + block.value_width
        for rows, scales in zip(weight.split(each), scb.split(each), strict=True):
            plain = rows[: block.plain].float() * scales[: block.plain, None].float() / 127
            turned = quantise_rows(plain.T.contiguous(), block.up.weight)
            back.append(self._matrix(turned, (block.latent, block.plain), block.up))
            pair = rows[block.plain :], scales[block.plain :]
            values.append(self._matrix(pair, (block.value_width, block.latent), block.up))
        first, second = (
            self._refs.keep((Matrix * block.heads)(*found)) for found in (back, values)
        )
        return first, second

    def _matrix(
        self, pair: tuple[Tensor, Tensor], shape: tuple[int, int], linear: Linear
    ) -> Matrix:
        return self._refs.matrix(*pair, shape=shape, name=linear.module)
