"""Norms in torch, in the type in which transformers computes them."""

import torch
import torch.nn.functional as F
from torch import Tensor

from llmchat.engines.transformers.families.blocks import Heads, Norm
from llmchat.errors import IntegrityError


class TorchNorm:
    """A norm of rows, see blocks.Norm. [..., width] → the same.

    weight, bias: float32. One with an offset or a factor is multiplied in float32, as in Gemma:
    bfloat16 cannot hold 1 + weight.
    """

    def __init__(self, norm: Norm, weight: Tensor | None, bias: Tensor | None, dtype: torch.dtype):
        self.epsilon = norm.epsilon
        self._is_layer = norm.kind == "layer"
        self._group = norm.group or norm.width
        self._scale = norm.scale if weight is None else 1.0
        self._is_precise = norm.offset != 0 or norm.scale != 1
        kind = torch.float32 if self._is_precise else dtype
        if weight is not None:
            weight = ((_of(weight, norm) + norm.offset) * norm.scale).to(kind)
        if bias is not None:
            bias = (_of(bias, norm) * norm.scale).to(kind)
        self.weight, self.bias = weight, bias
        self._size = (self._group,)
        # Weights that differ from group to group are multiplied afterwards.
        self._is_shared = all(one is None or one.numel() == self._group for one in (weight, bias))
        self._is_usual = self._is_shared and not (self._is_layer or self._is_precise or norm.bias)

    def __call__(self, x: Tensor) -> Tensor:
        if self._is_usual and x.shape[-1] == self._group:
            return F.rms_norm(x, self._size, self.weight, self.epsilon)
        if not self._is_shared:
            normed = self._normed(x.unflatten(-1, (-1, self._group)), None, None).flatten(-2)
            normed = normed if self.weight is None else normed * self.weight
            return (normed if self.bias is None else normed + self.bias).to(x.dtype)
        if x.shape[-1] == self._group:
            return self._normed(x, self.weight, self.bias).to(x.dtype)
        grouped = self._normed(x.unflatten(-1, (-1, self._group)), self.weight, self.bias)
        return grouped.flatten(-2).to(x.dtype)

    def of_heads(self, x: Tensor, heads: Heads) -> Tensor:
        """The same of rows that are laid out as heads, [heads, T, width]."""
        if self._is_shared and self._group == heads.width:
            return self(x)
        rows = self(x.transpose(0, 1).flatten(1))  # [T, heads * width]
        return rows.unflatten(1, (heads.count, heads.width)).transpose(0, 1)

    def _normed(self, x: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
        x = x.float() if self._is_precise else x
        if self._is_layer:
            out = F.layer_norm(x, self._size, weight, bias, self.epsilon)
        else:
            out = F.rms_norm(x, self._size, weight, self.epsilon)
            out = out if bias is None else out + bias
        return out if self._scale == 1 else out * self._scale


def _of(values: Tensor, norm: Norm) -> Tensor:
    """Flattened. Raises IntegrityError unless they are as many as a row or a group has."""
    if values.numel() not in (norm.width, norm.group):
        raise IntegrityError(
            f"the tensor `{norm.weight}` has {values.numel():,} numbers; its norm needs"
            f" {norm.width:,}"
        )
    return values.flatten()
