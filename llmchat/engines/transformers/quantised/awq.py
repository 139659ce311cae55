"""Reads AWQ: value = scale of the group * (code - zero point of the group)."""

from collections.abc import Callable

import torch
from torch import Tensor

from llmchat.engines.transformers.quantised.bits import finite, unpack
from llmchat.engines.transformers.quantised.groups import scale_type, with_zeros
from llmchat.engines.transformers.quantised.types import GroupedWeight
from llmchat.quantisation import StoredWeight

# Where the eight outputs of a word lie in it (gemm).
_PLACES = (0, 4, 1, 5, 2, 6, 3, 7)


def read(stored: StoredWeight, get: Callable[[str], Tensor]) -> GroupedWeight:
    """get: a tensor of the files."""
    codes, zeros, scale = (_gemm if stored.variant == "gemm" else _gemv)(stored, get)
    finite(scale, stored.parts["scales"])
    group = stored.block[1]
    return with_zeros(GroupedWeight(codes, 4, group, group, scale_type(scale)), zeros)


def _gemm(stored: StoredWeight, get: Callable[[str], Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    """Codes [out, in], zero points and scales [out, groups]."""
    out, parts = stored.shape[0], stored.parts
    codes, zeros = (
        unpack(get(parts[role]), 4, out)
        .unflatten(1, (-1, 8))[..., torch.tensor(_PLACES)]
        .flatten(1)
        for role in ("qweight", "qzeros")
    )
    return codes.T.contiguous(), zeros.T.contiguous(), get(parts["scales"]).T.contiguous()


def _gemv(stored: StoredWeight, get: Callable[[str], Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    (_, in_), parts = stored.shape, stored.parts
    groups = -(-in_ // stored.block[1])
    codes, zeros = unpack(get(parts["qweight"]), 4, in_), unpack(get(parts["qzeros"]), 4, groups)
    return codes, zeros, get(parts["scales"])[:, :groups].contiguous()
