"""The type in which a device multiplies matrices fastest."""

from functools import cache

import torch

__all__ = ["product_dtype"]


def product_dtype(device: torch.device, dtype: torch.dtype) -> torch.dtype:
    """The type for products of many rows whose activations are `dtype`.

    fp32 in place of bf16 on a CPU without instructions for bf16 (AVX2, the older ARM). torch then
    takes 6 times as long for a product in bf16, and 30 times for its gradient (docs/log.md).
    """
    if device.type == "cpu" and dtype == torch.bfloat16 and not _cpu_multiplies_bf16():
        return torch.float32
    return dtype


@cache
def _cpu_multiplies_bf16() -> bool:
    return torch.backends.mkldnn.is_available() and bool(
        torch.ops.mkldnn._is_mkldnn_bf16_supported()
    )
