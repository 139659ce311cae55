"""Reads 8-bit floats: value = number * scale of its block of rows and inputs."""

from collections.abc import Callable

from torch import Tensor

from llmchat.engines.transformers.quantised.bits import finite
from llmchat.quantisation import StoredWeight


def read(stored: StoredWeight, get: Callable[[str], Tensor]) -> Tensor:
    """float32 [out, in], or a stack of such. get: a tensor of the files."""
    parts, (rows, in_) = stored.parts, stored.block
    scale = finite(get(parts["scale"]).float(), parts["scale"])
    *stack, out, width = stored.shape
    scale = scale.reshape(*stack, -(-out // rows), -(-width // in_)) if _is_whole(scale, stored) else (
        scale.reshape(*[1] * len(stack), 1, 1)
    )
    along = scale.repeat_interleave(rows, -2)[..., :out, :] if scale.shape[-2] > 1 else scale
    along = along.repeat_interleave(in_, -1)[..., :width] if scale.shape[-1] > 1 else along
    return finite(get(parts["weight"]).float(), parts["weight"]).mul_(along)


def _is_whole(scale: Tensor, stored: StoredWeight) -> bool:
    """Whether each matrix of a stack has scales of its own."""
    return scale.numel() > 1 or len(stored.shape) == 2
