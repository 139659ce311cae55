"""NVIDIA GPUs: int8 products in Triton, and decode steps as captured CUDA graphs.

Requires compute capability 8.0, Triton (part of torch's CUDA builds) and a C compiler. Without them
int8 runs on bitsandbytes' kernels, and each operation is launched by itself.
"""

import logging
from functools import cache

import torch
from torch import Tensor, nn

from llmchat.engines.transformers.pytorch.cuda.shapes import is_plain
from llmchat.engines.transformers.pytorch.int8 import DequantBuffer, Int8Linear

__all__ = ["fault", "int8_linear", "is_plain", "take_over", "usable"]

# Before Ampere there is no bf16.
_CAPABILITY = (8, 0)


@cache
def usable(device: torch.device) -> bool:
    """Whether the kernels run on this device and give correct results.

    Tested once, by running them; if they do not, the log has the reason.
    """
    if device.type != "cuda" or not torch.cuda.is_available():
        return False
    if torch.version.hip is None and torch.cuda.get_device_capability(device) < _CAPABILITY:
        return False
    reason = fault(device)
    if reason:
        logging.getLogger(__name__).warning("8-bit layers run slower here: %s", reason)
    return not reason


def fault(device: torch.device) -> str:
    """Why the kernels cannot run on a device; "" if they can.

    Multiplies a small matrix with one row of activations and with three.
    """
    try:
        from llmchat.engines.transformers.pytorch.cuda import launch
    except ImportError as error:
        return f"Triton is not installed ({error})"
    weight = (torch.arange(64 * 64, device=device) * 37 % 255 - 127).to(torch.int8).view(64, 64)
    step = torch.full((64,), 0.01, device=device)
    try:
        for rows in (1, 3):
            x = torch.linspace(-1, 2, 64 * rows, device=device).view(rows, 64).bfloat16()
            exact = x.float() @ weight.float().T * 0.01
            if (launch.matvec(x, weight, step).float() - exact).abs().max() > 0.1:
                return "its kernels give wrong numbers"
    except Exception as error:  # the compilers behind Triton raise anything
        first_line = str(error).partition("\n")[0]
        return f"Triton cannot build its kernels ({type(error).__name__}: {first_line})"
    return ""


def int8_linear(
    weight: Tensor, scb: Tensor, bias: Tensor | None, buffer: DequantBuffer
) -> nn.Module:
    """A layer of int8 weights for a device that is `usable`."""
    from llmchat.engines.transformers.pytorch.cuda.linear import TritonInt8Linear

    return TritonInt8Linear(weight, scb, bias, buffer)


def take_over(model: nn.Module) -> None:
    """Replace the int8 layers of a model that was built on the CPU by those of a GPU.

    Called before the model is spread over several GPUs.
    """
    if not usable(torch.device("cuda", 0)):
        return
    buffer = DequantBuffer()
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, Int8Linear):
                setattr(parent, name, int8_linear(child.weight, child.SCB, child.bias, buffer))
