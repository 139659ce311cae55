"""Whether a model fits, before it is loaded, from the shapes of its tensors alone."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from math import prod
from typing import get_args

import torch

from llmchat.engines import Weights
from llmchat.errors import OutOfResources

# Bytes a weight takes in a linear layer; NF4 keeps one 32-bit scale for 64 weights beside the 4 bits.
_BYTES = {"int8": 1.0, "int4": 0.5625, "bf16": 2.0, "fp32": 4.0}
# Work space beside the weights: the interpreter, torch itself, one dequantised layer, the KV cache of a short chat.
_OVERHEAD = 600_000_000


def needed(shapes: Mapping[str, tuple[int, ...]], kind: Weights) -> int:
    """Bytes of the loaded model. Embeddings, norms and the output head stay 16 bit in the quantised kinds."""
    total = 0.0
    for name, shape in shapes.items():
        quantised = len(shape) == 2 and "embed" not in name and "lm_head" not in name
        total += prod(shape) * (_BYTES[kind] if quantised else max(2.0, _BYTES[kind] if kind == "fp32" else 2.0))
    return int(total) + _OVERHEAD


def available(device: torch.device) -> int:
    """Bytes that can still be taken on a device."""
    if device.type == "cuda":
        # What a model before this one has left behind is free, but torch keeps it.
        torch.cuda.empty_cache()
        devices = range(torch.cuda.device_count()) if device.index is None else [device.index]
        return sum(torch.cuda.mem_get_info(index)[0] for index in devices)
    with open("/proc/meminfo", encoding="ascii") as file:
        fields = dict(line.split(":", 1) for line in file)
    return int(fields["MemAvailable"].split()[0]) * 1024


def check(shapes: Mapping[str, tuple[int, ...]], kind: Weights, device: torch.device) -> None:
    """Refuse a model that cannot fit, and say which kind of weights would."""
    free, wanted = available(device), needed(shapes, kind)
    if wanted <= free:
        return
    fitting = [other for other in get_args(Weights) if needed(shapes, other) <= min(free, wanted)]
    hint = (
        f"it would fit with --weights {fitting[0]} ({_gigabytes(needed(shapes, fitting[0]))})"
        if fitting
        else "no kind of weights makes it fit here; choose a smaller model"
    )
    raise OutOfResources(f"the model needs {_gigabytes(wanted)} as {kind}; {_gigabytes(free)} of memory are free", hint)


@contextmanager
def reported() -> Iterator[None]:
    """Turn running out of memory into an error with advice."""
    try:
        yield
    except (MemoryError, torch.OutOfMemoryError) as error:
        raise _exhausted() from error
    except RuntimeError as error:
        if "can't allocate memory" in str(error):
            raise _exhausted() from error
        raise


def _exhausted() -> OutOfResources:
    return OutOfResources("memory ran out", "a shorter --context, --weights int4 or a smaller model needs less")


def _gigabytes(count: int) -> str:
    return f"{count / 1e9:.1f} GB"
