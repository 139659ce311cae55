"""The order of rows in the matrices of an attention, in a plan and in a GGUF file.

llama.cpp has all queries, then all keys, then all values in a joined matrix; families also have
them head by head, or in groups that share keys. Some converters make rotary pairs adjacent.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from llmchat.engines.transformers.families.blocks import Attention, Heads
from llmchat.engines.transformers.families.names import found_in
from llmchat.engines.transformers.families.plan import Plan
from llmchat.engines.transformers.quantised.gguf_places import Rows, interleaved


class Part(NamedTuple):
    """Rows [first, first + out) of the joined matrix of a layer."""

    first: int
    out: int


class HeadRows(NamedTuple):
    """By the module of a linear. changes: the order of its rows, where a file has another one.
    parts: the place of queries, keys and values that a plan has one by one, in a file that has them
    joined.
    """

    changes: dict[str, Rows]
    parts: dict[str, Part]


def head_rows(plan: Plan, *, is_rotated: bool) -> HeadRows:
    """is_rotated: rotary pairs are adjacent in the file, and halves of a head apart in the plan."""
    found = HeadRows({}, {})
    for block in found_in(plan, Attention):
        if block.shares is not None:
            # It has queries alone.
            continue
        if len(block.inputs) == 1:
            _add_joined(found, block)
        elif len(block.inputs) == 3:
            _add_parts(found, block)
            for linear, heads in zip(block.inputs, (block.queries, block.keys), strict=False):
                if is_rotated:
                    found.changes[linear.module] = interleaved(heads.count)
    return found


def _add_joined(found: HeadRows, block: Attention) -> None:
    """The file has all queries, all keys, all values."""
    there = torch.cat([_rows(heads) for heads in (block.queries, block.keys, block.values)])
    order = torch.argsort(there)
    if not torch.equal(order, torch.arange(len(order))):
        found.changes[block.inputs[0].module] = Rows(lambda rows: order)


def _add_parts(found: HeadRows, block: Attention) -> None:
    first = 0
    for linear in block.inputs:
        found.parts[linear.module] = Part(first, linear.out)
        first += linear.out


def _rows(heads: Heads) -> Tensor:
    begins = torch.tensor([heads.begin(head) for head in range(heads.count)])
    return (begins[:, None] + torch.arange(heads.width)).flatten()
