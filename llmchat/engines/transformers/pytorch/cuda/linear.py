"""Row-wise int8 linears in Triton: weights stay int8, activations bf16, sums fp32."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from llmchat.engines.transformers.pytorch.cuda import launch
from llmchat.engines.transformers.pytorch.int8 import DequantBuffer


class TritonInt8Linear(nn.Module):
    """bitsandbytes' bytes: `weight` int8 [out, in] and `SCB` float32 [out].

    Few rows take one kernel; more rows are multiplied in bf16 by the dequantised weight.
    """

    def __init__(self, weight: Tensor, scb: Tensor, bias: Tensor | None, buffer: DequantBuffer):
        super().__init__()
        self.register_buffer("weight", weight.contiguous())
        self.register_buffer("SCB", scb)
        self.register_buffer("step", scb.float() / 127)
        self.register_buffer("bias", None if bias is None else bias.to(torch.bfloat16))
        self.out_features, self.in_features = weight.shape
        self._buffer = buffer

    def forward(self, x: Tensor) -> Tensor:
        rows = x.reshape(-1, self.in_features)
        if launch.fits(rows, self.weight):
            out = launch.matvec(rows, self.weight, self.step, self.bias)
        else:
            out = F.linear(rows, self._buffer.fill(self.weight, x.dtype)).mul_(self.step)
            if self.bias is not None:
                out += self.bias
        return out.view(*x.shape[:-1], self.out_features)


def fused(
    layer: nn.Module,
    x: Tensor,
    *,
    norm: Tensor | None = None,
    eps: float = 0.0,
    residual: Tensor | None = None,
    gated: bool = False,
) -> Tensor:
    """layer(rms_norm(x, norm)), then silu(first half) * second half if gated, then + residual.

    x: [m, in] bf16. One kernel where the layer's weights are int8, or bf16 with one row; for any
    other layer several operations give the same.
    """
    if isinstance(layer, TritonInt8Linear | nn.Linear) and launch.fits(x, layer.weight):
        step = layer.step if isinstance(layer, TritonInt8Linear) else None
        return launch.matvec(
            x, layer.weight, step, layer.bias, norm=norm, eps=eps, residual=residual, gated=gated
        )
    if norm is not None:
        x = F.rms_norm(x, (x.shape[-1],), norm, eps)
    out: Tensor = layer(x)
    if gated:
        gate, up = out.chunk(2, dim=-1)
        out = F.silu(gate) * up
    return out if residual is None else residual + out
