"""Reads ChatGLM's own files: value = scale of the row * code.

Of two codes in a byte the first has the high bits, and both are signed. Source: quantization.py and
quantization_kernels.c of THUDM/chatglm-6b-int4, where a scale is max|w| / 7, or / 127 in 8 bits.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from llmchat.engines.transformers.quantised.bits import finite
from llmchat.engines.transformers.quantised.groups import scale_type
from llmchat.engines.transformers.quantised.types import GroupedWeight
from llmchat.quantisation import StoredWeight


def read(stored: StoredWeight, get: Callable[[str], Tensor]) -> GroupedWeight | Tensor:
    """get: a tensor of the files. Codes are written without a sign, zero in the middle."""
    (_, in_), bits, parts = stored.shape, stored.bits, stored.parts
    half, codes = 1 << (bits - 1), get(parts["weight"])
    if bits == 4:
        # Shifts of signed numbers keep their sign.
        codes = torch.stack((codes >> 4, (codes << 4) >> 4), -1).flatten(1)
    unsigned = (codes.to(torch.int16) + half).to(torch.uint8)
    scale = scale_type(finite(get(parts["weight_scale"]), parts["weight_scale"]))
    return GroupedWeight(unsigned, bits, in_, in_, scale[:, None], zero=half)
