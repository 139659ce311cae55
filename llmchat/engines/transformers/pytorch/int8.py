"""Row-wise int8 weights in bitsandbytes' layout: W ≈ weight * SCB / 127.

`weight` is int8 [out, in], `SCB` float32 [out]. Products are weight-only (activations stay 16 bit):
faster than bf16 where memory bounds the speed, and closer to the original than LLM.int8(), which
rounds activations too.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from llmchat.engines.transformers.pytorch.products import product_dtype
from llmchat.errors import IntegrityError

# Rows up to which the matrix-vector kernel beats dequantise-and-multiply (docs/log.md).
GEMV_ROWS = 8
_ROWS_AT_ONCE = 256
_ALIGNMENT = 64


def quantise_rows(weight: Tensor, name: str = "a weight") -> tuple[Tensor, Tensor]:
    """[out, in] → int8 [out, in] and SCB, float32 [out].

    The step of a row is its maximum / 127, rounded up to a bf16 number. The kernels multiply by it
    in bf16, and a step that bf16 holds exactly is not rounded a second time: on the default model
    that halves the loss of perplexity (docs/log.md).
    Raises IntegrityError, with the name, for a weight that holds NaN or infinity.
    """
    quantised = torch.empty_like(weight, dtype=torch.int8)
    scb = torch.empty(weight.shape[0], device=weight.device)
    # In blocks: fp32 temporaries of the whole matrix between results that stay fragment the heap.
    for start in range(0, weight.shape[0], _ROWS_AT_ONCE):
        block = slice(start, start + _ROWS_AT_ONCE)
        rows = weight[block].float()
        step = _rounded_up(rows.abs().amax(dim=1) / 127)
        divisor = torch.where(step == 0, 1.0, step)[:, None]
        quantised[block] = (rows / divisor).round_().clamp_(-127, 127)
        scb[block] = step * 127
    return quantised, finite(scb, name)


def _rounded_up(step: Tensor) -> Tensor:
    """The smallest bf16 numbers that are not below fp32 ones, as fp32."""
    nearest = step.to(torch.bfloat16)
    above = nearest.nextafter(torch.full_like(nearest, torch.inf))
    return torch.where(nearest.float() < step, above, nearest).float()


def finite(x: Tensor, name: str) -> Tensor:
    """The tensor itself. Raises IntegrityError if it holds NaN or infinity."""
    if not bool(torch.isfinite(x).all()):
        raise IntegrityError(
            f"{name} holds NaN or infinity",
            "the file is damaged, or was saved like this; use another copy or revision",
        )
    return x


class DequantBuffer:
    """Memory for one dequantised matrix, shared by all layers of a model.

    Allocating it anew for each product costs more than the conversion itself.
    """

    def __init__(self) -> None:
        self._buffers: dict[tuple[torch.dtype, torch.device], Tensor] = {}

    def fill(self, weight: Tensor, dtype: torch.dtype) -> Tensor:
        """The weight as `dtype`; valid until the next call."""
        key = (dtype, weight.device)
        buffer = self._buffers.get(key)
        if buffer is None or buffer.numel() < weight.numel():
            buffer = torch.empty(weight.numel(), dtype=dtype, device=weight.device)
            self._buffers[key] = buffer
        return buffer[: weight.numel()].view(weight.shape).copy_(weight)


class Int8Linear(nn.Module):
    """A linear in plain torch. Activations [..., in] in bf16 or fp32 → [..., out]."""

    def __init__(
        self,
        weight: Tensor,
        scb: Tensor,
        bias: Tensor | None,
        dtype: torch.dtype,
        buffer: DequantBuffer,
    ):
        super().__init__()
        # Other programs write matrices at any offset of a file; torch's kernel crashes the process
        # on an address that is not aligned.
        weight = weight.contiguous()
        self.register_buffer("weight", weight.clone() if weight.data_ptr() % _ALIGNMENT else weight)
        self.register_buffer("SCB", scb)
        self.register_buffer("scale", (scb / 127.0).to(dtype))
        self.register_buffer("bias", None if bias is None else bias.to(dtype))
        self.out_features, self.in_features = weight.shape
        self._buffer = buffer
        # The kernel reads 16 weights at a time without a check: other widths give wrong numbers or
        # a crash. It is vectorised for bf16 only.
        is_vectorised = weight.device.type == "cpu" and dtype == torch.bfloat16
        self._has_gemv = is_vectorised and self.in_features % 16 == 0

    def forward(self, x: Tensor) -> Tensor:
        rows = x.reshape(-1, self.in_features)
        if self._has_gemv and rows.shape[0] <= GEMV_ROWS and _is_aligned(rows):
            out = torch.ops.aten._weight_int8pack_mm(rows, self.weight, self.scale)
        else:
            dtype = product_dtype(x.device, x.dtype)
            weight = self._buffer.fill(self.weight, dtype)
            out = F.linear(rows.to(dtype), weight).mul_(self.scale).to(x.dtype)
        if self.bias is not None:
            out += self.bias
        return out.view(*x.shape[:-1], self.out_features)


def _is_aligned(x: Tensor) -> bool:
    return bool(x.is_contiguous() and x.data_ptr() % _ALIGNMENT == 0)
