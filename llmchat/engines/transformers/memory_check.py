"""Checks that a model fits into memory, from the shapes of its tensors, before it is loaded."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, get_args

import torch

from llmchat.errors import OutOfResources
from llmchat.memory_estimate import NONE_STORED, OVERHEAD, Shapes, available_ram, needed
from llmchat.output.formatting import byte_count
from llmchat.settings.types import Weights

__all__ = ["available", "check", "needed", "reported"]


def available(device: torch.device) -> int:
    """Free bytes of a device."""
    if device.type == "cuda":
        # torch keeps the memory of a model that was freed.
        torch.cuda.empty_cache()
        devices = range(torch.cuda.device_count()) if device.index is None else [device.index]
        return sum(torch.cuda.mem_get_info(index)[0] for index in devices)
    return available_ram()


def check(
    shapes: Shapes,
    kind: Weights,
    device: torch.device,
    mapped: bool = False,
    config: dict[str, Any] | None = None,
    stored: Mapping[str, int] = NONE_STORED,
) -> None:
    """Raise OutOfResources for a model that cannot fit, with the kind of weights that would.

    mapped: on the CPU such weights need no memory, since the OS can evict their pages. stored: name
    → bytes of weights that keep the numbers of their file.
    """
    free = available(device)
    wanted = OVERHEAD if mapped and device.type == "cpu" else needed(shapes, kind, config, stored)
    if wanted <= free:
        return
    sizes = {other: needed(shapes, other, config, stored) for other in get_args(Weights)}
    fitting = [other for other, size in sizes.items() if size <= min(free, wanted)]
    hint = (
        f"it would fit with --weights {fitting[0]} ({byte_count(sizes[fitting[0]])})"
        if fitting
        else "no kind of weights makes it fit here; choose a smaller model"
    )
    raise OutOfResources(
        f"the model needs {byte_count(wanted)} as {kind}; {byte_count(free)} of memory are free",
        hint,
    )


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
    return OutOfResources(
        "memory ran out", "a shorter --context, --weights int4 or a smaller model needs less"
    )
