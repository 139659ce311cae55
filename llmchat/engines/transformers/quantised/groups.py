"""What integer formats share: the order of inputs, constant zero points, scales as numbers."""

from dataclasses import replace

import torch
from torch import Tensor

from llmchat.engines.transformers.quantised.types import GroupedWeight
from llmchat.errors import IntegrityError
from llmchat.parse_guard import shown


def scale_type(scale: Tensor) -> Tensor:
    """A scale in a type that GroupedWeight has, without rounding."""
    return scale if scale.dtype in (torch.float16, torch.float32) else scale.float()


def with_zeros(weight: GroupedWeight, zeros: Tensor) -> GroupedWeight:
    """The weight with zero points [out, blocks], which are one number where they are all equal."""
    first = zeros.flatten()[0]
    if bool((zeros == first).all()):
        return replace(weight, zero=int(first))
    return replace(weight, zeros=zeros.to(torch.uint8).contiguous())


def ordered(weight: GroupedWeight, groups_of_inputs: Tensor, name: str) -> GroupedWeight | Tensor:
    """The weight whose input i is in group `groups_of_inputs`[i].

    Its values where the groups are of different sizes. Raises IntegrityError for a group that does
    not exist.
    """
    wanted = groups_of_inputs.long()
    count, in_ = weight.scale.shape[1], weight.shape[1]
    if bool(((wanted < 0) | (wanted >= count)).any()):
        raise IntegrityError(
            f"`{shown(name)}` names a group of scales outside 0 to {count - 1}",
            "the file is damaged; `llmchat pull` fetches it again",
        )
    in_order = torch.arange(in_) // weight.block
    if torch.equal(wanted, in_order):
        return weight
    order = torch.argsort(wanted, stable=True)
    if not torch.equal(wanted[order], in_order):
        return _values(weight, wanted)
    return replace(weight, codes=weight.codes[:, order].contiguous(), order=order)


def _values(weight: GroupedWeight, groups: Tensor) -> Tensor:
    numbers = weight.codes.float() - weight.zero
    if weight.zeros is not None:
        numbers = numbers - weight.zeros.float()[:, groups]
    return weight.scale.float()[:, groups] * numbers
