"""NVIDIA GPUs: int8 by kernels of our own, and decode steps as captured graphs. Needs Triton, which comes with torch for CUDA, and a C compiler.

Where one of them is missing, int8 goes through bitsandbytes' kernels, which need neither, and each operation is launched by itself.
"""

import logging
from functools import cache
from typing import Any

import torch
from torch import Tensor

# Before Ampere there is no bf16.
_CAPABILITY = (8, 0)


@cache
def usable(device: torch.device) -> bool:
    """Whether the kernels run on this device and are right there: found out once, by running them. If not, the log says why."""
    if device.type != "cuda" or not torch.cuda.is_available():
        return False
    if torch.version.hip is None and torch.cuda.get_device_capability(device) < _CAPABILITY:
        return False
    reason = fault(device)
    if reason:
        logging.getLogger(__name__).warning("8-bit layers run slower here: %s", reason)
    return not reason


def fault(device: torch.device) -> str:
    """What keeps the kernels from running on a device; "" if they do. It tries a small matrix with one row of activations and with three."""
    try:
        from llmchat.engines.transformers.pytorch.cuda import launch
    except ImportError as error:
        return f"Triton is not installed ({error})"
    weight = (torch.arange(64 * 64, device=device) * 37 % 255 - 127).to(torch.int8).view(64, 64)
    step = torch.full((64,), 0.01, device=device)
    try:
        for rows in (1, 3):
            x = torch.linspace(-1, 2, 64 * rows, device=device).view(rows, 64).bfloat16()
            difference = (
                launch.matvec(x, weight, step).float() - x.float() @ weight.float().T * 0.01
            )
            if difference.abs().max() > 0.1:
                return "its kernels give wrong numbers"
    except Exception as error:  # the compilers behind Triton raise what they like
        return f"Triton cannot build its kernels ({type(error).__name__}: {str(error).partition(chr(10))[0]})"
    return ""


def int8_linear(weight: Tensor, scb: Tensor, bias: Tensor | None, scratch: Any) -> torch.nn.Module:
    """A layer of int8 weights for a device that is `usable`."""
    from llmchat.engines.transformers.pytorch.cuda.linear import TritonInt8Linear

    return TritonInt8Linear(weight, scb, bias, scratch)


def take_over(model: torch.nn.Module) -> None:
    """Prepare a model that was built on the CPU for being spread over GPUs: its int8 layers become those of a GPU."""
    if not usable(torch.device("cuda", 0)):
        return
    from llmchat.engines.transformers.pytorch.linear import DequantBuffer, Int8Linear

    scratch = DequantBuffer()
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, Int8Linear):
                setattr(parent, name, int8_linear(child.weight, child.SCB, child.bias, scratch))
