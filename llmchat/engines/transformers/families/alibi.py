"""The slopes of ALiBi (Press et al. 2022)."""

import torch
from torch import Tensor


def slopes(heads: int) -> Tensor:
    """[heads]: 2 ** (-8 * i / heads) for i from 1, where heads is a power of two.

    Other counts take every second slope of the next power of two, then the ones between them.
    """
    power = 1 << (heads - 1).bit_length()
    all_slopes = 2.0 ** (-8.0 / power * torch.arange(1, power + 1, dtype=torch.float32))
    if power == heads:
        return all_slopes
    return torch.cat([all_slopes[1::2], all_slopes[::2]])[:heads]
