"""Makes the structures of csrc/model.h of the blocks that change several streams a token."""

import ctypes
from typing import Any, Protocol

from llmchat.engines.transformers.compiled import structs
from llmchat.engines.transformers.families import blocks
from llmchat.engines.transformers.families.blocks import Block, Linear
from llmchat.engines.transformers.families.plan import Step

# Their order in the enumeration of kinds in model.h.
STREAMS: tuple[type[Any], ...] = (
    blocks.Laurel,
    blocks.OpenStreams,
    blocks.MixStreams,
    blocks.JoinStreams,
)


def supports_streams(step: Step) -> bool:
    """Whether csrc computes exactly what a step with one of these blocks describes."""
    is_plain = step.post_norm is None and step.scale == step.factor == 1.0
    match step.block:
        case blocks.Laurel():
            return step.post_norm is None
        case blocks.OpenStreams(projections=others) | blocks.JoinStreams(projections=others):
            return is_plain and step.norm is None and len(others) < structs.MAX_STREAMS
        case blocks.MixStreams():
            return is_plain and step.norm is None
        case blocks.LayerInput(scale=scale, stream_norm=norm):
            return (is_plain or norm is None) and (step.norm is None or scale is None)
        case _:
            return False


class Makers(Protocol):
    """What a BlockLoader makes for all kinds of blocks."""

    def norm(self, norm: blocks.Norm | None) -> structs.Norm: ...

    def float_matrix(self, linear: Linear) -> int: ...


class StreamLoader:
    """Details of these blocks."""

    def __init__(self, makers: Makers):
        self._makers = makers

    def details(self, block: Block) -> ctypes.Structure:
        match block:
            case blocks.Laurel():
                return structs.Laurel(self._makers.norm(block.norm))
            case blocks.MixStreams():
                return self._mix(block)
            case _:
                return structs.NoDetails()

    def _mix(self, block: blocks.MixStreams) -> structs.MixStreams:
        router, coefficients = block.router, block.coefficients
        addresses = self._makers.float_matrix(router), self._makers.float_matrix(coefficients)
        norm = self._makers.norm(block.norm)
        return structs.MixStreams(*addresses, router.out, norm, block.corrects)
