"""Weights in few bits with scales of groups, in plain torch: where the compiled step does not run.

Each product dequantises its matrix first, so the numbers are those of the weights, and a token
takes longer than with int8.
"""

from collections.abc import Sequence
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from llmchat.engines.transformers.pytorch.products import product_dtype
from llmchat.engines.transformers.quantised.types import GroupedWeight


class GroupedLinear(nn.Module):
    """A linear of matrices one below the other. Activations [..., in] in bf16 or fp32 → [..., out].

    Codes of up to four bits are kept in pairs.
    """

    def __init__(
        self, weights: Sequence[GroupedWeight], bias: Tensor | None, device: torch.device
    ):  # fmt: skip
        super().__init__()
        self._parts = [_Pairs(weight.map(lambda one: one.to(device))) for weight in weights]
        self.register_buffer("bias", bias)

    def forward(self, x: Tensor) -> Tensor:
        dtype = product_dtype(x.device, x.dtype)
        rows = x.to(dtype)
        outs = [F.linear(rows, part.weight().to(dtype)).to(x.dtype) for part in self._parts]
        out = outs[0] if len(outs) == 1 else torch.cat(outs, -1)
        return out if self.bias is None else out + self.bias


class _Pairs:
    def __init__(self, weight: GroupedWeight):
        self._width = weight.shape[1]
        self._is_paired = weight.bits <= 4 and self._width % 2 == 0
        if self._is_paired:
            codes = weight.codes
            weight = replace(weight, codes=codes[:, ::2] | codes[:, 1::2] << 4)
        self._weight = weight

    def weight(self) -> Tensor:
        """float32 [out, in]"""
        weight = self._weight
        if self._is_paired:
            codes = torch.stack((weight.codes & 15, weight.codes >> 4), -1).flatten(1)
            weight = replace(weight, codes=codes)
        return weight.dequantised()
