"""Reads integers of compressed-tensors: value = scale * (number - zero point).

Codes are numbers plus half of their range, in files too where they are packed.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from llmchat.engines.transformers.quantised.bits import finite, unpack
from llmchat.engines.transformers.quantised.groups import ordered, scale_type, with_zeros
from llmchat.engines.transformers.quantised.types import GroupedWeight
from llmchat.errors import IntegrityError
from llmchat.parse_guard import shown
from llmchat.quantisation import StoredWeight

_Get = Callable[[str], Tensor]


def read_packed(stored: StoredWeight, get: _Get) -> GroupedWeight | Tensor:
    """get: a tensor of the files."""
    parts = stored.parts
    codes = unpack(get(parts["weight_packed"]), stored.bits, stored.shape[1])
    weight = _weight(stored, get, codes, "weight_scale")
    if "weight_g_idx" not in parts:
        return weight
    groups = get(parts["weight_g_idx"])
    # -1 in all places: a group order that was never set.
    if bool((groups == -1).all()):
        return weight
    return ordered(weight, groups, parts["weight_g_idx"])


def read_integers(stored: StoredWeight, get: _Get) -> GroupedWeight:
    """Numbers that are stored one by one."""
    return _weight(stored, get, _codes(get(stored.parts["weight"]), stored), "scale")


def _codes(numbers: Tensor, stored: StoredWeight) -> Tensor:
    codes = numbers.to(torch.int16) + 2 ** (stored.bits - 1)
    if bool(((codes < 0) | (codes >= 2**stored.bits)).any()):
        raise IntegrityError(
            f"`{shown(stored.parts['weight'])}` has numbers that are not of {stored.bits} bits"
        )
    return codes.to(torch.uint8)


def _weight(stored: StoredWeight, get: _Get, codes: Tensor, role: str) -> GroupedWeight:
    columns, name = stored.block[1], stored.parts[role]
    scale = _by_row(scale_type(finite(get(name), name)), stored)
    weight = GroupedWeight(codes, stored.bits, columns, columns, scale)
    if stored.variant == "symmetric":
        return with_zeros(weight, torch.tensor([2 ** (stored.bits - 1)]))
    return with_zeros(weight, _by_row(_zeros(stored, get), stored))


def _zeros(stored: StoredWeight, get: _Get) -> Tensor:
    zeros = get(stored.parts["weight_zero_point"])
    if zeros.dtype != torch.int32:
        return zeros.to(torch.int16) + 2 ** (stored.bits - 1)
    rows = -(-stored.shape[0] // stored.block[0])
    return unpack(zeros.T, stored.bits, rows).T


def _by_row(values: Tensor, stored: StoredWeight) -> Tensor:
    """One value for each block of rows → [out, blocks]."""
    rows, columns = stored.block
    blocks = -(-stored.shape[1] // columns)
    return values.reshape(-1, blocks).repeat_interleave(rows, 0)[: stored.shape[0]].contiguous()
