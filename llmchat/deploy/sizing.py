"""How a model is laid out over GPUs, from its config and the memory of one GPU. Arithmetic alone."""

import math
from collections.abc import Mapping
from typing import Any

from msgspec import Struct

from llmchat.errors import OutOfResources, UsageError
from llmchat.memory_estimate import heads, kv_bytes, layers

# What vLLM takes of a GPU unless it is told otherwise (--gpu-memory-utilization), and an estimate of what it needs there beside weights and
# keys: the CUDA context, activations of a step, CUDA graphs.
SHARE = 0.92
WORK = 2.5e9
# Whole windows that a copy should have room for, where there are more GPUs: with fewer its GPUs wait for memory, not for work (an estimate).
CHATS = 8
BYTES = {"auto": 2, "bfloat16": 2, "float16": 2, "float32": 4}


class Hardware(Struct, frozen=True):
    """hosts with `gpus` GPUs each, of `memory` bytes; gpus 0: one host that serves on its CPU; memory 0: not known."""

    hosts: int = 1
    gpus: int = 1
    memory: float = 0


class Layout(Struct, frozen=True):
    """tensor GPUs share each layer, pipeline groups share the layers, data copies answer side by side.

    weights: bytes of one copy; cache: tokens of keys and values for which one copy has room; both 0 where nobody knows.
    """

    tensor: int = 1
    pipeline: int = 1
    data: int = 1
    weights: float = 0
    cache: int = 0

    @property
    def gpus(self) -> int:
        return self.tensor * self.pipeline * self.data


def arrange(
    hardware: Hardware,
    config: Mapping[str, Any],
    parameters: float,
    context: int,
    dtype: str = "auto",
) -> Layout:
    """The layout for this hardware: as few GPUs to a copy as hold it and CHATS windows, and copies on the rest of the host; all of them where
    that is not to be had, or memory is unknown.

    Over several hosts, one pipeline stage each, tensor parallel inside a host. Raises OutOfResources where it does not fit.
    """
    if hardware.hosts > 1 and layers(config) and layers(config) < hardware.hosts:
        raise UsageError(
            f"a model of {layers(config)} layers cannot be spread over {hardware.hosts} hosts"
        )
    if not hardware.gpus:
        if hardware.hosts > 1 or hardware.memory:
            raise UsageError(
                "without GPUs vLLM serves on the CPU of one host",
                "leave --hosts and --gpu-memory out",
            )
        return Layout(weights=parameters * BYTES[dtype])
    sizes = [size for size in range(1, hardware.gpus + 1) if divides(size, config)]
    weights = parameters * BYTES[dtype]
    if not hardware.memory or not weights:
        return Layout(sizes[-1], hardware.hosts, weights=weights)
    rooms = {size: room(size, hardware.hosts, hardware.memory, weights, config) for size in sizes}
    enough = (
        [size for size in sizes if rooms[size] >= CHATS * max(1, context)]
        if hardware.hosts == 1
        else []
    )
    size = enough[0] if enough else sizes[-1]
    if rooms[size] < max(1, context):
        raise _too_small(hardware, config, weights, context)
    return Layout(
        size,
        hardware.hosts,
        hardware.gpus // size if hardware.hosts == 1 else 1,
        weights,
        rooms[size],
    )


def divides(size: int, config: Mapping[str, Any]) -> bool:
    """Whether vLLM can share a layer between so many GPUs: attention heads and the inner width of the MLP must divide."""
    own, shared = heads(config)
    inner = config.get("intermediate_size")
    whole = [own, *([inner] if isinstance(inner, int) else [])]
    return size == 1 or (
        own > 0
        and all(number % size == 0 for number in whole)
        and (shared % size == 0 or size % shared == 0)
    )


def room(
    tensor: int, pipeline: int, memory: float, weights: float, config: Mapping[str, Any]
) -> int:
    """Tokens of keys and values that fit beside the weights on these GPUs; 0 when none do. Heads of keys that are fewer than GPUs are doubled."""
    free = tensor * pipeline * (memory * SHARE - WORK) - weights
    shared = heads(config)[1]
    copies = max(1, tensor // shared) if shared else 1
    one = kv_bytes(config, 1) * copies
    return max(0, int(free / one)) if one else 0


def _too_small(
    hardware: Hardware, config: Mapping[str, Any], weights: float, context: int
) -> OutOfResources:
    needed = weights + kv_bytes(config, max(1, context))
    have = hardware.hosts * hardware.gpus * (hardware.memory * SHARE - WORK)
    gpus = next(
        (
            size
            for size in (1, 2, 4, 8)
            if divides(size, config) and room(size, 1, hardware.memory, weights, config) >= context
        ),
        0,
    )
    least = (
        math.ceil(needed / (hardware.memory * SHARE - WORK))
        if hardware.memory * SHARE > WORK
        else 0
    )
    hint = (
        f"--gpus {gpus} holds it"
        if gpus
        else f"at least {least} such GPUs: --gpus 8 --hosts {math.ceil(least / 8)}"
        if least
        else ""
    )
    return OutOfResources(
        f"weights and one chat of {context:,} tokens are {needed / 1e9:.0f} GB; these GPUs have room for {max(0, have) / 1e9:.0f} GB",
        hint,
    )
