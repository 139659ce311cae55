"""Reads GPTQ: value = scale of the group * (code - zero point of the group)."""

from collections.abc import Callable

from torch import Tensor

from llmchat.engines.transformers.quantised.bits import finite, unpack
from llmchat.engines.transformers.quantised.groups import ordered, scale_type, with_zeros
from llmchat.engines.transformers.quantised.types import GroupedWeight
from llmchat.quantisation import StoredWeight


def read(stored: StoredWeight, get: Callable[[str], Tensor]) -> GroupedWeight | Tensor:
    """get: a tensor of the files. Version 1 stores a zero point less 1, without its sign."""
    (out, in_), bits, group = stored.shape, stored.bits, stored.block[1]
    parts = stored.parts
    codes = unpack(get(parts["qweight"]).T, bits, in_)
    zeros = unpack(get(parts["qzeros"]), bits, out)
    if stored.variant == "v1":
        zeros = (zeros + 1) & (2**bits - 1)
    scale = scale_type(finite(get(parts["scales"]), parts["scales"])).T.contiguous()
    weight = with_zeros(GroupedWeight(codes, bits, group, group, scale), zeros.T)
    if "g_idx" not in parts:
        return weight
    return ordered(weight, get(parts["g_idx"]), parts["g_idx"])
