"""Reads 8-bit floats: value = number * scale of its block of rows and inputs."""

from collections.abc import Callable

from torch import Tensor

from llmchat.engines.transformers.quantised.bits import finite
from llmchat.quantisation import StoredWeight


def read(stored: StoredWeight, get: Callable[[str], Tensor]) -> Tensor:
    """float32 [out, in], or a stack of such. get: a tensor of the files."""
    parts, (rows, in_) = stored.parts, stored.block
    *stack, out, width = stored.shape
    scale = finite(get(parts["scale"]).float(), parts["scale"])
    shape = (*stack, -(-out // rows), -(-width // in_))
    scale = scale.reshape(shape if scale.numel() > 1 else (1,) * len(shape))
    if scale.shape[-2] > 1:
        scale = scale.repeat_interleave(rows, -2)[..., :out, :]
    if scale.shape[-1] > 1:
        scale = scale.repeat_interleave(in_, -1)[..., :width]
    return finite(get(parts["weight"]).float(), parts["weight"]).mul_(scale)
