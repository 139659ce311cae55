"""Rotary embeddings in torch (Su et al. 2021)."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from llmchat.engines.transformers.families.blocks import Rotary


@dataclass(frozen=True)
class Turn:
    """Rotates heads of the rows of one pass. cos, sin: [T, width] in the type of activations."""

    cos: Tensor
    sin: Tensor
    is_interleaved: bool
    first: int

    def __call__(self, x: Tensor) -> Tensor:
        """x: [heads, T, head width], of which `width` numbers from `first` on are rotated."""
        end = self.first + self.cos.shape[-1]
        if self.first == 0 and end == x.shape[-1]:
            return self._rotated(x)
        part = self._rotated(x[..., self.first : end])
        return torch.cat((x[..., : self.first], part, x[..., end:]), dim=-1)

    def _rotated(self, x: Tensor) -> Tensor:
        if self.is_interleaved:
            crossed = torch.stack((-x[..., 1::2], x[..., ::2]), dim=-1).flatten(-2)
        else:
            first, second = x.chunk(2, dim=-1)
            crossed = torch.cat((-second, first), dim=-1)
        return x * self.cos + crossed * self.sin


class TorchRotary:
    """A rotary embedding whose frequencies are on a device."""

    def __init__(self, source: Rotary, device: torch.device):
        self.source = source
        self.frequencies = source.frequencies.to(device)
        self._long = None if source.long is None else source.long.to(device)

    def turn(
        self, positions: Tensor, is_long: Sequence[bool], counts: Sequence[int], dtype: torch.dtype
    ) -> Turn:
        """positions: [T]; is_long, counts: of each text, see Rotary.trained."""
        if self._long is None or not any(is_long):
            angles, scale = torch.outer(positions.float(), self.frequencies), self.source.scale
            return self._tables(angles, scale, dtype)
        parts = [
            torch.outer(part.float(), self._long if long else self.frequencies)
            for part, long in zip(positions.split(list(counts)), is_long, strict=True)
        ]
        scales = [self.source.long_scale if long else self.source.scale for long in is_long]
        repeats = torch.tensor(counts, device=positions.device)
        scale = torch.tensor(scales, device=positions.device).repeat_interleave(repeats)[:, None]
        return self._tables(torch.cat(parts), scale, dtype)

    def _tables(self, angles: Tensor, scale: Tensor | float, dtype: torch.dtype) -> Turn:
        """angles: [T, width / 2]"""
        if self.source.interleaved:
            angles = angles.repeat_interleave(2, dim=-1)
        else:
            angles = torch.cat((angles, angles), dim=-1)
        cos, sin = ((side * scale).to(dtype) for side in (angles.cos(), angles.sin()))
        return Turn(cos, sin, self.source.interleaved, self.source.first)
