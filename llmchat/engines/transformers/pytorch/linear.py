"""Linear layers by kind of weights and device: one module a kind, all called in the same way.

A model never knows which one it has.
"""

import logging
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from llmchat.engines.transformers.pytorch import cuda
from llmchat.engines.transformers.pytorch.grouped import GroupedLinear
from llmchat.engines.transformers.pytorch.int8 import (
    GEMV_ROWS,
    DequantBuffer,
    Int8Linear,
    quantise_rows,
)
from llmchat.engines.transformers.pytorch.products import product_dtype
from llmchat.engines.transformers.quantised.four_bits import FOUR, quantised
from llmchat.settings.types import Weights

# The NF4 kernel for the CPU takes only whole blocks of inputs, and of outputs.
_NF4_BLOCK = 64
_NF4_ROWS = 32


class BnbInt8Linear(nn.Module):
    """int8 through bitsandbytes' LLM.int8() kernels, on GPUs where the kernels of cuda/ cannot run.

    Columns with outlier activations stay 16 bit.
    """

    def __init__(self, weight: Tensor, scb: Tensor, bias: Tensor | None, dtype: torch.dtype):
        super().__init__()
        import bitsandbytes

        self.register_buffer("weight", weight.contiguous())
        self.register_buffer("SCB", scb)
        self.register_buffer("bias", None if bias is None else bias.to(dtype))
        self._matmul = bitsandbytes.matmul
        self._state = bitsandbytes.MatmulLtState()
        self._state.CB, self._state.SCB = self.weight, self.SCB
        self._state.threshold = 6.0
        self._state.has_fp16_weights = False
        self._state.is_training = False

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self._matmul(x, self.weight, bias=self.bias, state=self._state)
        return out.to(x.dtype)


class WidenedLinear(nn.Linear):
    """A linear that keeps bf16 weights and computes many rows in fp32: see `product_dtype`."""

    def __init__(self, weight: Tensor, bias: Tensor | None, buffer: DequantBuffer):
        super().__init__(weight.shape[1], weight.shape[0], bias=bias is not None, device="meta")
        self.weight = nn.Parameter(weight, requires_grad=False)
        self.bias = None if bias is None else nn.Parameter(bias, requires_grad=False)
        self._buffer = buffer

    def forward(self, input: Tensor) -> Tensor:
        if input.numel() <= GEMV_ROWS * self.in_features:
            return super().forward(input)
        out = F.linear(input.float(), self._buffer.fill(self.weight, torch.float32))
        return (out if self.bias is None else out.add_(self.bias)).to(input.dtype)


def make_linear(
    weight: Tensor,
    bias: Tensor | None,
    kind: Weights,
    device: torch.device,
    buffer: DequantBuffer,
) -> nn.Module:
    """A layer that computes x @ weight.T + bias, its weights kept as `kind` on `device`.

    weight: [out, in] in a floating type.
    """
    dtype = compute_dtype(kind)
    bias = None if bias is None else bias.to(device, dtype)
    if _has_few_bits(kind, weight):
        return _few_bits(kind, weight, bias, device)
    if kind in ("int8", "int4", "nf4"):
        return int8_linear(*quantise_rows(weight), bias, device, buffer)
    if product_dtype(device, dtype) != dtype:
        return WidenedLinear(weight.to(device, dtype), bias, buffer)
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None, device="meta")
    layer.weight = nn.Parameter(weight.to(device, dtype), requires_grad=False)
    layer.bias = None if bias is None else nn.Parameter(bias, requires_grad=False)
    return layer


def int8_linear(
    weight: Tensor, scb: Tensor, bias: Tensor | None, device: torch.device, buffer: DequantBuffer
) -> nn.Module:
    """A layer of weights that are int8 already, [out, in] and [out].

    On the CPU it keeps the tensors themselves, which may be mapped from a file.
    """
    dtype = compute_dtype("int8")
    weight, scb = weight.to(device), scb.to(device)
    bias = None if bias is None else bias.to(device, dtype)
    if device.type != "cuda":
        return Int8Linear(weight, scb, bias, dtype, buffer)
    if cuda.usable(device):
        return cuda.int8_linear(weight, scb, bias, buffer)
    return BnbInt8Linear(weight, scb, bias, dtype)


def compute_dtype(kind: Weights) -> torch.dtype:
    """The type of activations."""
    return torch.float32 if kind == "fp32" else torch.bfloat16


def _has_few_bits(kind: Weights, weight: Tensor) -> bool:
    """Whether a matrix of this shape can be kept in four bits; others have eight."""
    out, in_ = map(int, weight.shape)
    if kind == "nf4":
        return in_ % _NF4_BLOCK == 0 and out % _NF4_ROWS == 0
    return kind == "int4" and in_ % FOUR.group == 0


def _few_bits(
    kind: Weights, weight: Tensor, bias: Tensor | None, device: torch.device
) -> nn.Module:
    if kind == "nf4":
        return _nf4(weight, bias, device)
    return GroupedLinear([quantised(weight, None, FOUR)], bias, device)


def _nf4(weight: Tensor, bias: Tensor | None, device: torch.device) -> nn.Module:
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    import bitsandbytes

    out_features, in_features = weight.shape
    layer: Any = bitsandbytes.nn.Linear4bit(
        in_features,
        out_features,
        bias=bias is not None,
        compute_dtype=product_dtype(device, torch.bfloat16),
        quant_type="nf4",
        device="meta",
    )
    weight = weight.to(torch.bfloat16).contiguous()
    packed = bitsandbytes.nn.Params4bit(weight, requires_grad=False, quant_type="nf4", module=layer)
    layer.weight = packed.to(device)
    if bias is not None:
        layer.bias = nn.Parameter(bias, requires_grad=False)
    return layer.eval()
