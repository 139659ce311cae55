"""List the NVIDIA GPUs that CUDA may use, with their memory, through NVML and without torch."""

from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from msgspec import Struct


class Gpu(Struct, frozen=True):
    """One GPU, or one MIG slice of it; memory in bytes."""

    name: str
    free: int
    total: int


def list_gpus(env: Mapping[str, str]) -> tuple[Gpu, ...]:
    """The GPUs that CUDA_VISIBLE_DEVICES leaves, in its order; none without NVML or a driver."""
    try:
        import pynvml as nvml
    except ImportError:
        return ()
    try:
        nvml.nvmlInit()
    except nvml.NVMLError:
        return ()
    try:
        return tuple(_gpu(nvml, handle) for handle in _visible(nvml, env))
    except nvml.NVMLError:
        # A GPU without memory of its own reports none: its model lives in the machine's RAM.
        return ()
    finally:
        with suppress(nvml.NVMLError):
            nvml.nvmlShutdown()


def _gpu(nvml: Any, handle: Any) -> Gpu:
    memory = nvml.nvmlDeviceGetMemoryInfo(handle)
    return Gpu(nvml.nvmlDeviceGetName(handle), int(memory.free), int(memory.total))


def _visible(nvml: Any, env: Mapping[str, str]) -> list[Any]:
    """As CUDA reads the variable: the first entry that names no GPU ends the list."""
    count = nvml.nvmlDeviceGetCount()
    handles = [nvml.nvmlDeviceGetHandleByIndex(index) for index in range(count)]
    wanted = env.get("CUDA_VISIBLE_DEVICES")
    if wanted is None:
        return handles
    found: list[Any] = []
    for entry in wanted.split(","):
        handle = _named(nvml, handles, entry.strip())
        if handle is None:
            break
        found.append(handle)
    return found


def _named(nvml: Any, handles: list[Any], entry: str) -> Any:
    """The GPU with this index, this beginning of a UUID, or this MIG UUID."""
    if entry.isdecimal():
        return handles[int(entry)] if int(entry) < len(handles) else None
    if entry.startswith("MIG-"):
        with suppress(nvml.NVMLError):
            return nvml.nvmlDeviceGetHandleByUUID(entry)
    if not entry.startswith("GPU-"):
        return None
    matching = (one for one in handles if nvml.nvmlDeviceGetUUID(one).startswith(entry))
    return next(matching, None)
