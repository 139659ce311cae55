"""Some rows of a matrix that is quantised: its numbers in groups, and how much each counts."""

import torch
from torch import Tensor
from torch.nn.functional import pad

from llmchat.engines.transformers.pytorch.int8 import finite

# An input that the calibration text hardly uses counts as if it had this fraction of the mean.
_LEAST_USED, _NOTHING = 1e-3, 1e-30


class Rows:
    """numbers: the type of a block's scale. importance: [in], or None."""

    def __init__(
        self, rows: Tensor, importance: Tensor | None, sizes: tuple[int, int], numbers: torch.dtype
    ):
        group, block = sizes
        self._numbers, self._per_block = numbers, block // group
        groups = (rows.shape[0], rows.shape[1] // group, group)
        self.x = finite(rows.float(), "a weight").view(groups).permute(2, 0, 1).contiguous()
        self.weights = _weights(self.x, importance)

    def rounded(self, values: Tensor) -> Tensor:
        """Values as a scale of a block stores them."""
        return values.to(self._numbers).float()

    def sum(self, values: Tensor) -> Tensor:
        """[rows, groups] → [rows, blocks]"""
        return self.by_block(values).sum(-1)

    def by_block(self, values: Tensor) -> Tensor:
        """[rows, groups] → [rows, blocks, groups of a block], filled up with zeros."""
        missing = -values.shape[1] % self._per_block
        return pad(values, (0, missing)).unflatten(1, (-1, self._per_block))

    def along(self, values: Tensor) -> Tensor:
        """[rows, blocks] → [rows, groups]"""
        return values.repeat_interleave(self._per_block, 1)[:, : self.x.shape[2]]

    def stored(self, scale: Tensor) -> Tensor:
        """The scale of blocks in its type."""
        return scale.to(self._numbers)


def in_rows(codes: Tensor) -> Tensor:
    """[group, rows, groups] → uint8 [rows, in]"""
    return codes.permute(1, 2, 0).flatten(1).to(torch.uint8)


def _weights(x: Tensor, importance: Tensor | None) -> Tensor:
    """How much an error counts, for each number of groups; large numbers count more where the
    importance is unknown.
    """
    if importance is None:
        return x.square().mean(0).sqrt() + x.abs()
    used = importance.float()
    used = (used / used.mean().clamp_min(_NOTHING)).clamp_min(_LEAST_USED)
    return used.view(x.shape[2], x.shape[0]).T[:, None].expand_as(x)
