"""Linear layers by kind of weights. One module a kind, the same call; a model never knows which one it has.

int8 is row-wise absmax in bitsandbytes' layout: `weight` int8 [out, in], `SCB` float32 [out], W ≈ weight * SCB / 127. It is used
weight-only (activations stay 16 bit): faster than bf16 where memory bounds the speed, and closer to the original than LLM.int8(), whose
activations are rounded as well. On a GPU without Triton bitsandbytes' own kernels run on the same bytes.
"""

import logging
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from llmchat.errors import IntegrityError
from llmchat.settings.types import Weights

# Rows up to which the matrix-vector kernel beats dequantise-and-multiply (measured, see docs/log.md).
GEMV_ROWS = 8
_QUANTISED_ROWS = 256
_NF4_BLOCK = 64
_NF4_ROWS = 32
_ALIGNMENT = 64


def quantise_rows(weight: Tensor, name: str = "a weight") -> tuple[Tensor, Tensor]:
    """[out, in] → int8 [out, in] and SCB, float32 [out]: W ≈ int8 * SCB / 127.

    The step of a row is its maximum / 127, rounded up to a bf16 number. The kernels multiply by it in bf16, and a step that bf16 holds
    exactly is not rounded a second time: on the default model that halves the loss of perplexity (docs/log.md).
    Raises IntegrityError, with the name, for a weight that holds NaN or infinity.
    """
    quantised, scb = (
        torch.empty_like(weight, dtype=torch.int8),
        torch.empty(weight.shape[0], device=weight.device),
    )
    # In blocks: temporaries of the whole matrix in fp32, between the results that stay, leave the heap full of holes.
    for start in range(0, weight.shape[0], _QUANTISED_ROWS):
        rows = weight[start : start + _QUANTISED_ROWS].float()
        step = rows.abs().amax(dim=1) / 127
        rounded = step.to(torch.bfloat16)
        rounded = torch.where(
            rounded.float() < step, rounded.nextafter(torch.full_like(rounded, torch.inf)), rounded
        ).float()
        rows = (rows / torch.where(rounded == 0, 1.0, rounded)[:, None]).round_().clamp_(-127, 127)
        quantised[start : start + _QUANTISED_ROWS] = rows
        scb[start : start + _QUANTISED_ROWS] = rounded * 127
    return quantised, finite(scb, name)


def finite(x: Tensor, name: str) -> Tensor:
    """The tensor itself. Raises IntegrityError where it holds what is not a number: an answer of such a model would mean nothing."""
    if not bool(torch.isfinite(x).all()):
        raise IntegrityError(
            f"{name} holds NaN or infinity",
            "the file is damaged, or was saved so; use another copy or revision",
        )
    return x


class Int8Linear(nn.Module):
    """Row-wise int8 on the CPU, or anywhere in plain torch. Activations [..., in] in bf16 or fp32 → [..., out]."""

    def __init__(
        self,
        weight: Tensor,
        scb: Tensor,
        bias: Tensor | None,
        dtype: torch.dtype,
        scratch: "DequantBuffer",
    ):
        super().__init__()
        # Files of other programs put a matrix at any address; torch's kernel ends the process at one that is not aligned.
        weight = weight.contiguous()
        self.register_buffer("weight", weight.clone() if weight.data_ptr() % _ALIGNMENT else weight)
        self.register_buffer("SCB", scb)
        self.register_buffer("scale", (scb / 127.0).to(dtype))
        self.register_buffer("bias", None if bias is None else bias.to(dtype))
        self.out_features, self.in_features = weight.shape
        self._scratch = scratch
        # The kernel reads 16 weights at a time and does not check: other widths give wrong numbers or a crash. It is vectorised for bf16 alone.
        self._gemv = (
            weight.device.type == "cpu" and dtype == torch.bfloat16 and self.in_features % 16 == 0
        )

    def forward(self, x: Tensor) -> Tensor:
        rows = x.reshape(-1, self.in_features)
        if (
            rows.shape[0] <= GEMV_ROWS
            and self._gemv
            and rows.is_contiguous()
            and rows.data_ptr() % 64 == 0
        ):
            out = torch.ops.aten._weight_int8pack_mm(rows, self.weight, self.scale)
        else:
            out = F.linear(rows, self._scratch.fill(self.weight, x.dtype)).mul_(self.scale)
        if self.bias is not None:
            out += self.bias
        return out.view(*x.shape[:-1], self.out_features)


class DequantBuffer:
    """Room for one dequantised matrix, shared by all layers of a model: fresh memory costs more than the conversion itself."""

    def __init__(self) -> None:
        self._room: dict[tuple[torch.dtype, torch.device], Tensor] = {}

    def fill(self, weight: Tensor, dtype: torch.dtype) -> Tensor:
        key = (dtype, weight.device)
        room = self._room.get(key)
        if room is None or room.numel() < weight.numel():
            room = self._room[key] = torch.empty(weight.numel(), dtype=dtype, device=weight.device)
        return room[: weight.numel()].view(weight.shape).copy_(weight)


class BnbInt8Linear(nn.Module):
    """The same bytes through bitsandbytes' LLM.int8() kernels (CUDA where cuda/ cannot run). Columns with outlier activations stay 16 bit."""

    def __init__(self, weight: Tensor, scb: Tensor, bias: Tensor | None, dtype: torch.dtype):
        super().__init__()
        import bitsandbytes

        self.register_buffer("weight", weight.contiguous())
        self.register_buffer("SCB", scb)
        self.register_buffer("bias", None if bias is None else bias.to(dtype))
        self._matmul = bitsandbytes.matmul
        self._state = bitsandbytes.MatmulLtState()
        self._state.CB, self._state.SCB = self.weight, self.SCB
        self._state.threshold, self._state.has_fp16_weights, self._state.is_training = (
            6.0,
            False,
            False,
        )

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self._matmul(x, self.weight, bias=self.bias, state=self._state)
        return out.to(x.dtype)


def make_linear(
    weight: Tensor, bias: Tensor | None, kind: Weights, device: torch.device, scratch: DequantBuffer
) -> nn.Module:
    """A layer that computes x @ weight.T + bias, its weights kept as `kind` on `device`. weight: [out, in] in a floating type."""
    dtype = compute_dtype(kind)
    bias = None if bias is None else bias.to(device, dtype)
    if kind == "int4" and (weight.shape[1] % _NF4_BLOCK or weight.shape[0] % _NF4_ROWS):
        # The kernel for the CPU takes whole blocks of inputs, and of outputs, alone.
        kind = "int8"
    if kind == "int8":
        return int8_linear(*quantise_rows(weight), bias, device, scratch)
    if kind == "int4":
        return _nf4(weight, bias, device)
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None, device="meta")
    layer.weight = nn.Parameter(weight.to(device, dtype), requires_grad=False)
    layer.bias = None if bias is None else nn.Parameter(bias, requires_grad=False)
    return layer


def int8_linear(
    weight: Tensor, scb: Tensor, bias: Tensor | None, device: torch.device, scratch: DequantBuffer
) -> nn.Module:
    """A layer of weights that are int8 already, [out, in] and [out]; on the CPU it keeps the very tensors, be they mapped or not."""
    dtype = compute_dtype("int8")
    weight, scb, bias = (
        weight.to(device),
        scb.to(device),
        None if bias is None else bias.to(device, dtype),
    )
    if device.type == "cuda":
        from llmchat.engines.transformers.pytorch import cuda

        return (
            cuda.int8_linear(weight, scb, bias, scratch)
            if cuda.usable(device)
            else BnbInt8Linear(weight, scb, bias, dtype)
        )
    return Int8Linear(weight, scb, bias, dtype, scratch)


def compute_dtype(kind: Weights) -> torch.dtype:
    """The type of activations."""
    return torch.float32 if kind == "fp32" else torch.bfloat16


def _nf4(weight: Tensor, bias: Tensor | None, device: torch.device) -> nn.Module:
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    import bitsandbytes

    out_features, in_features = weight.shape
    layer: Any = bitsandbytes.nn.Linear4bit(
        in_features,
        out_features,
        bias=bias is not None,
        compute_dtype=torch.bfloat16,
        quant_type="nf4",
        device="meta",
    )
    layer.weight = bitsandbytes.nn.Params4bit(
        weight.to(torch.bfloat16).contiguous(), requires_grad=False, quant_type="nf4", module=layer
    ).to(device)
    if bias is not None:
        layer.bias = nn.Parameter(bias, requires_grad=False)
    return layer.eval()
