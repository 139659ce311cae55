"""Which code runs a recurrent block."""

from collections.abc import Sequence
from typing import Protocol

from torch import Tensor

from llmchat.engines.transformers.families import blocks
from llmchat.engines.transformers.families.blocks import Block
from llmchat.engines.transformers.pytorch.recurrent_mixers import (
    DeltaNet,
    Loader,
    Mamba2,
    ShortConvolution,
)
from llmchat.engines.transformers.pytorch.recurrent_rwkv import RwkvChannel, RwkvTime


class Run(Protocol):
    def __call__(self, x: Tensor, counts: Sequence[int], states: Sequence[Tensor]) -> Tensor:
        """x: [R, hidden], the new rows of several texts, `counts` of each. states: of each text,
        flat, see cache_shapes; they become those after its rows. Returns [R, hidden].
        """
        ...


def recurrent(block: Block, load: Loader) -> Run | None:
    """What runs a recurrent block; None for another kind."""
    match block:
        case blocks.DeltaNet():
            return DeltaNet(block, load)
        case blocks.Mamba2():
            return Mamba2(block, load)
        case blocks.ShortConvolution():
            return ShortConvolution(block, load)
        case blocks.RwkvTime():
            return RwkvTime(block, load)
        case blocks.RwkvChannel():
            return RwkvChannel(block, load)
        case _:
            return None
