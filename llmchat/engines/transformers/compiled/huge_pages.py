"""Memory in pages of 2 MB where the system has them, so that reading a long KV cache takes fewer
look-ups of addresses. A page that is touched is in memory as a whole.
"""

import mmap
from collections.abc import Sequence
from contextlib import suppress
from math import prod

import torch
from torch import Tensor

_PAGE = 2 << 20
_ADVICE = getattr(mmap, "MADV_HUGEPAGE", None)


def empty(shapes: Sequence[tuple[int, ...]], dtype: torch.dtype) -> list[Tensor]:
    """Tensors of these shapes, one after the other in one memory. They are zero."""
    sizes = [prod(shape) for shape in shapes]
    memory = mmap.mmap(
        -1, sum(sizes) * dtype.itemsize + _PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
    )
    if _ADVICE is not None:
        with suppress(OSError):
            memory.madvise(_ADVICE)
    whole = torch.frombuffer(memory, dtype=torch.uint8)
    start = -whole.data_ptr() % _PAGE
    numbers = whole[start : start + sum(sizes) * dtype.itemsize].view(dtype)
    parts = numbers.split(sizes)
    return [part.view(shape) for part, shape in zip(parts, shapes, strict=True)]
