"""The type in which a device multiplies matrices fastest."""

from functools import cache

import torch

__all__ = ["product_dtype"]


def product_dtype(device: torch.device, dtype: torch.dtype) -> torch.dtype:
    """The type in which to compute products of many rows with activations of type `dtype`.

    fp32 in place of bf16 on CPUs without bf16 instructions (AVX2, older ARM): there torch takes
    at least six times as long for bf16, and 30 times as long for gradients (docs/log.md).
    """
    if device.type == "cpu" and dtype == torch.bfloat16 and not _cpu_multiplies_bf16():
        return torch.float32
    return dtype


@cache
def _cpu_multiplies_bf16() -> bool:
    return torch.backends.mkldnn.is_available() and bool(
        torch.ops.mkldnn._is_mkldnn_bf16_supported()
    )
