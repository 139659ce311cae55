"""Lay out a model over GPUs, from its config and the memory of one GPU. Arithmetic only."""

import math
from collections.abc import Mapping
from typing import Any

from msgspec import Struct

from llmchat.errors import OutOfResources, UsageError
from llmchat.memory_estimate import heads, kv_bytes, layers

# The fraction of a GPU that vLLM uses by default (--gpu-memory-utilization), and an estimate of
# what it needs besides weights and KV cache: CUDA context, activations, CUDA graphs.
SHARE = 0.92
WORK = 2.5e9
# Full windows that a copy should have room for if there are more GPUs (an estimate): with fewer
# its GPUs are limited by memory.
CHATS = 8
BYTES = {"auto": 2, "bfloat16": 2, "float16": 2, "float32": 4}


class Hardware(Struct, frozen=True):
    """Hosts with `gpus` GPUs each, of `memory` bytes.

    gpus 0: one host that serves on its CPU; memory 0: unknown.
    """

    hosts: int = 1
    gpus: int = 1
    memory: float = 0


class Layout(Struct, frozen=True):
    """How GPUs share a model.

    tensor: GPUs that share each layer; pipeline: groups that share the layers; data: copies that
    run
    in parallel; weights: bytes of one copy; cache: tokens of KV cache for one copy; both 0 if
    unknown.
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
    """Choose a layout: the fewest GPUs for a copy with CHATS windows, and copies on the rest.

    Uses all GPUs for one copy if that is impossible, or if memory is unknown. Over several hosts,
    each host is a pipeline stage, with tensor parallelism inside. Raises OutOfResources if it does
    not fit.
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
    """Whether vLLM can share a layer between `size` GPUs.

    Attention heads and the inner width of the MLP must be divisible by it.
    """
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
    """Tokens of KV cache that fit next to the weights on these GPUs.

    0 if none do. Key heads that are fewer than the GPUs are duplicated.
    """
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
    return OutOfResources(
        f"weights and one chat of {context:,} tokens are {needed / 1e9:.0f} GB;"
        f" these GPUs have room for {max(0, have) / 1e9:.0f} GB",
        _larger(hardware, config, weights, context, needed),
    )


def _larger(
    hardware: Hardware, config: Mapping[str, Any], weights: float, context: int, needed: float
) -> str:
    """A hint: how many such GPUs would be enough; empty if none would."""
    for size in (1, 2, 4, 8):
        if divides(size, config) and room(size, 1, hardware.memory, weights, config) >= context:
            return f"--gpus {size} holds it"
    usable = hardware.memory * SHARE - WORK
    if usable <= 0:
        return ""
    least = math.ceil(needed / usable)
    return f"at least {least} such GPUs: --gpus 8 --hosts {math.ceil(least / 8)}"
