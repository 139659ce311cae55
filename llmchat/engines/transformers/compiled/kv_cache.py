"""A KV cache whose buffers have the layout of csrc/kv_layout.h. On disk it has the usual one."""

import ctypes
from collections.abc import Sequence
from ctypes import c_void_p

import torch
from torch import Tensor

from llmchat.engines.transformers.compiled.structs import LANES, SPAN
from llmchat.engines.transformers.families.cache_shapes import KeyValues, State
from llmchat.engines.transformers.pytorch.kv_cache import Buffers, KVCache


class CompiledCache(KVCache):
    """keys, values, states: C arrays of the addresses of each block's buffers, NULL where it has
    none. `reserve` may move them. is_valid: whether an encoder's memories are finite.
    """

    # Untouched memory costs nothing, but growing copies: a large first buffer is cheap.
    FIRST = 2048
    BLOCK = SPAN

    def __init__(self, shapes: Sequence[KeyValues | State | None], trained: int = 0):
        super().__init__(shapes, torch.bfloat16, torch.device("cpu"), trained)
        self.is_valid = True
        self._find_buffers()

    def reserve(self, length: int) -> None:
        before = self.capacity
        super().reserve(length)
        if self.capacity != before:
            self._find_buffers()

    def see(self, memory: KVCache) -> None:
        super().see(memory)
        self._find_buffers()

    def _find_buffers(self) -> None:
        keys, values = self._keys, self._values
        if self.memory:
            keys, values = _filled(keys, self.memory._keys), _filled(values, self.memory._values)
        self.keys, self.values = _addresses(keys), _addresses(values)
        self.states = _addresses(self._states)

    def _load_positions(self, side: str, buffer: Tensor, count: int) -> Tensor:
        blocks = buffer[:, : self._whole_blocks(count)]
        return self._usual_order(side, blocks).reshape(blocks.shape)[:, :count]

    def _store_positions(self, side: str, buffer: Tensor, positions: Tensor) -> None:
        heads, count, width = positions.shape
        blocks = torch.zeros(heads, self._whole_blocks(count), width, dtype=positions.dtype)
        blocks[:, :count] = positions
        view = self._usual_order(side, buffer[:, : blocks.shape[1]])
        view.copy_(blocks.view(view.shape))

    def _usual_order(self, side: str, buffer: Tensor) -> Tensor:
        """A view of [heads, positions, width] whose dimensions, flattened, are in that order."""
        spans, width = buffer.shape[1] // SPAN, buffer.shape[2]
        if side == "keys":
            shape, order = (SPAN // LANES, width // 2, LANES, 2), (0, 1, 2, 4, 3, 5)
        else:
            shape, order = (width // LANES, SPAN // 2, LANES, 2), (0, 1, 3, 5, 2, 4)
        return buffer.unflatten(1, (spans, SPAN)).flatten(2).unflatten(2, shape).permute(order)


def _filled(buffers: Buffers, others: Buffers) -> Buffers:
    """The buffers, and others where there are none."""
    pairs = zip(buffers, others, strict=True)
    return [other if buffer is None else buffer for buffer, other in pairs]


def _addresses(tensors: Buffers) -> "ctypes.Array[c_void_p]":
    """The addresses of tensors as a C array, which does not keep them alive."""
    found = (None if tensor is None else tensor.data_ptr() for tensor in tensors)
    return (c_void_p * len(tensors))(*found)
