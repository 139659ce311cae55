"""Reads NF4 and FP4 of bitsandbytes: value = map[code] * maximum of its block of 64.

Blocks are of the flattened weight, and the even element is in the high half of a byte.
"""

import json
from collections.abc import Callable
from math import prod

import torch
from torch import Tensor

from llmchat.engines.transformers.quantised.bits import finite
from llmchat.errors import IntegrityError
from llmchat.parse_guard import shown
from llmchat.quantisation import StoredWeight

_CODES = 16
_NESTED_CODES = 256
_Get = Callable[[str], Tensor]


def read(stored: StoredWeight, get: _Get) -> Tensor:
    """float32 [out, in]. get: a tensor of the files."""
    parts, count = stored.parts, prod(stored.shape)
    data = get(parts["codes"]).contiguous().view(torch.uint8).flatten()
    codes = torch.stack((data >> 4, data & 15), 1).flatten()[:count]
    values = _map(get, parts["quant_map"], _CODES)[codes.int()]
    maxima = finite(_maxima(stored, get), parts["absmax"])
    values *= maxima.repeat_interleave(stored.block[1])[:count]
    return values.view(stored.shape)


def _maxima(stored: StoredWeight, get: _Get) -> Tensor:
    """float32, one a block; with double quantisation they are 8-bit codes themselves."""
    parts = stored.parts
    maxima = get(parts["absmax"]).flatten()
    if maxima.dtype != torch.uint8:
        return maxima.float()
    state = json.loads(stored.variant)
    outer = get(parts["nested_absmax"]).float().flatten()
    block, offset = int(state.get("nested_blocksize", 256)), float(state.get("nested_offset", 0))
    if block < 1 or len(outer) != -(-len(maxima) // block):
        raise IntegrityError(f"`{shown(parts['nested_absmax'])}` does not fit its weight")
    factors = outer.repeat_interleave(min(block, len(maxima)))[: len(maxima)]
    return _map(get, parts["nested_quant_map"], _NESTED_CODES)[maxima.int()] * factors + offset


def _map(get: _Get, name: str, count: int) -> Tensor:
    values = get(name).float().flatten()
    if len(values) != count:
        raise IntegrityError(f"`{shown(name)}` has {len(values)} values instead of {count}")
    return finite(values, name)
