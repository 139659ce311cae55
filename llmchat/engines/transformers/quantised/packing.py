"""Packs a weight part by part, on all threads: what is in work stays in the caches."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import torch

from llmchat.engines.transformers.quantised.packed import (
    ROWS,
    kind_named,
    kind_of,
    pack,
    pack_into,
    packed_bytes,
    put_table,
)
from llmchat.engines.transformers.quantised.types import GroupedWeight, PackedWeight

# Weights of a part: of 2^18 to 2^23, this was the fastest.
_PART = 1 << 21


def pack_by_parts(
    grouped: Callable[[slice], GroupedWeight], shape: tuple[int, ...], name: str
) -> PackedWeight | None:
    """A weight [out, in] in the layout of the compiled step. grouped: the weight of some rows.

    None for a weight that has no layout.
    """
    out, in_ = shape
    first = grouped(slice(0, ROWS))
    kind = kind_of(first)
    if kind is None:
        return None
    bytes_of_rows = packed_bytes(kind, (ROWS, in_)) - packed_bytes(kind, (0, in_))
    data = torch.empty(packed_bytes(kind, (out, in_)), dtype=torch.uint8)
    body = data[put_table(first, data) :].view(-1, bytes_of_rows)
    # A thread has its own mode, and tensors of inference can only be written in that mode.
    infers = torch.is_inference_mode_enabled()

    def put(start: int) -> bool:
        with torch.inference_mode(infers):
            weight = grouped(slice(start, start + step))
            if kind_of(weight) != kind:
                return False
            part = body[start // ROWS : (start + step) // ROWS]
            pack_into(part.view(-1), weight, kind_named(kind), name)
            return True

    step = max(ROWS, _PART // in_ // ROWS * ROWS)
    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        is_uniform = all(pool.map(put, range(0, out, step)))
    # The layout depends on all numbers of a weight, in rare kinds.
    if not is_uniform:
        return pack(grouped(slice(None)), name)
    return PackedWeight(kind, data, (out, in_), first.order)
