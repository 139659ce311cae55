"""What each block of a plan remembers of a text: keys and values, or a state of fixed size."""

from collections.abc import Sequence
from dataclasses import dataclass

from llmchat.engines.transformers.families import blocks
from llmchat.engines.transformers.families.blocks import Block
from llmchat.engines.transformers.families.plan import Plan
from llmchat.memory_estimate import row_bytes
from llmchat.settings.types import KvKind


@dataclass(frozen=True)
class KeyValues:
    """Of each position: keys [heads, key_width] and values [heads, value_width]."""

    heads: int
    key_width: int
    value_width: int


@dataclass(frozen=True)
class State:
    """float32 tensors of these shapes, zero before the first token, one after the other."""

    parts: tuple[tuple[int, ...], ...]


def cache_shapes(plan: Plan) -> list[KeyValues | State | None]:
    """One for each block of the plan; None for a block that remembers nothing of its own."""
    return [_shape_of(block) for block in plan.blocks()]


def split_shapes(
    plan: Plan,
) -> tuple[list[KeyValues | State | None], list[KeyValues | State | None]]:
    """Those of a plan's encoder and of its decoder, each with the numbers of all blocks."""
    count = plan.encoder.block_count if plan.encoder else 0
    shapes = cache_shapes(plan)
    none: list[KeyValues | State | None] = [None] * len(shapes)
    return shapes[:count] + none[count:], none[:count] + shapes[count:]


def bytes_of_token(
    shapes: Sequence[KeyValues | State | None], size: int, kind: KvKind = "full"
) -> int:
    """Bytes that a token adds to a cache; size: of a number of activations."""

    def of_head(width: int) -> int:
        return row_bytes(width, kind) if kind == "int8" else size * width

    kept = (shape for shape in shapes if isinstance(shape, KeyValues))
    return sum(
        shape.heads * (of_head(shape.key_width) + of_head(shape.value_width)) for shape in kept
    )


def _shape_of(block: Block) -> KeyValues | State | None:
    match block:
        case blocks.Attention():
            shared = block.shares is not None or block.sees == "all"
            keys, values = block.keys, block.values
            return None if shared else KeyValues(keys.count, keys.width, values.width)
        case blocks.Memory():
            return KeyValues(block.keys.count, block.keys.width, block.values.width)
        case blocks.LatentAttention():
            return KeyValues(1, block.latent + block.rotary.width, block.latent)
        case blocks.DeltaNet():
            keys, values = block.keys, block.values
            channels = 2 * keys.count * keys.width + values.count * values.width
            state = values.count, keys.width, values.width
            return State(((block.kernel - 1, channels), state))
        case blocks.Mamba2():
            channels = block.heads * block.width + 2 * block.groups * block.state
            return State(((block.kernel - 1, channels), (block.heads, block.state, block.width)))
        case blocks.ShortConvolution():
            return State(((block.kernel - 1, block.width),))
        case blocks.RwkvTime():
            # The input before, then numerator, denominator and largest exponent.
            return State(((block.width,),) * 4)
        case blocks.Rwkv7Time(heads=heads, width=width):
            return State(((heads * width,), (heads, width, width)))
        case blocks.RwkvChannel():
            return State(((block.width,),))
        case _:
            return None
