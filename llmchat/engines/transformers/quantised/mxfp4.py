"""Reads MXFP4: value = 4-bit float * 2 ** (scale - 127), for 32 inputs each."""

from collections.abc import Callable

import torch
from torch import Tensor

from llmchat.engines.transformers.quantised.bits import halves
from llmchat.engines.transformers.quantised.types import GroupedWeight
from llmchat.errors import IntegrityError
from llmchat.parse_guard import shown
from llmchat.quantisation import StoredWeight

# Twice the floats: integers, with half the scale.
TABLE = torch.tensor([0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12], dtype=torch.int8)
_NAN = 255


def read(stored: StoredWeight, get: Callable[[str], Tensor]) -> GroupedWeight:
    """get: a tensor of the files."""
    blocks, scales = get(stored.parts["blocks"]), get(stored.parts["scales"]).view(torch.uint8)
    if stored.index is not None:
        start, step = stored.rows
        blocks, scales = blocks[stored.index, start::step], scales[stored.index, start::step]
    if bool((scales == _NAN).any()):
        raise IntegrityError(
            f"the scales `{shown(stored.parts['scales'])}` hold NaN",
            "the file is damaged, or was saved like this; use another copy or revision",
        )
    scale = torch.ldexp(torch.ones(scales.shape), scales.int() - 128)
    codes = halves(blocks).reshape(stored.shape)
    return GroupedWeight(codes, 4, 32, 32, scale, table=TABLE)
