"""A KV cache whose buffers have the layout of csrc/kv_layout.h or, with 8 bits, of kv_int8.h. On
disk it has the usual one.
"""

import ctypes
from collections.abc import Sequence
from ctypes import c_void_p

import torch
from torch import Tensor

from llmchat.engines.transformers.compiled import huge_pages
from llmchat.engines.transformers.compiled.structs import LANES, SPAN
from llmchat.engines.transformers.families.cache_shapes import KeyValues, State
from llmchat.engines.transformers.pytorch.cache_numbers import codes_of
from llmchat.engines.transformers.pytorch.kv_cache import Buffers, KVCache
from llmchat.settings.types import KvKind


class CompiledCache(KVCache):
    """keys, values, states: C arrays of the addresses of each block's buffers, NULL where it has
    none. `reserve` may move them. is_valid: whether an encoder's memories are finite.
    """

    # Untouched memory costs nothing, but growing copies: a large first buffer is cheap.
    FIRST = 2048
    BLOCK = SPAN

    def __init__(
        self,
        shapes: Sequence[KeyValues | State | None],
        trained: int = 0,
        kind: KvKind = "full",
        answer_start: int | None = None,
    ):
        cpu = torch.device("cpu")
        super().__init__(shapes, torch.bfloat16, cpu, trained, kind, answer_start)
        self.is_valid = True
        self._find_buffers()

    def reserve(self, length: int) -> None:
        before = self.capacity
        super().reserve(length)
        if self.capacity != before:
            self._find_buffers()

    def _empty(self, shapes: Sequence[tuple[int, ...]]) -> list[Tensor]:
        """In huge pages where most of them will be in use: a short text touches little of each."""
        if self.capacity <= self.FIRST:
            return super()._empty(shapes)
        return huge_pages.empty(shapes, self._numbers.dtype)

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
        parts = [part.flatten(4).flatten(1, 3) for part in self._usual_order(side, blocks)]
        return torch.cat(parts, -1)[:, :count]

    def _store_positions(self, side: str, buffer: Tensor, positions: Tensor) -> None:
        heads, count, width = positions.shape
        blocks = torch.zeros(heads, self._whole_blocks(count), width, dtype=positions.dtype)
        blocks[:, :count] = positions
        views = self._usual_order(side, buffer[:, : blocks.shape[1]])
        parts = blocks.split([view.shape[4:].numel() for view in views], -1)
        for view, part in zip(views, parts, strict=True):
            view.copy_(part.reshape(view.shape))

    def _usual_order(self, side: str, buffer: Tensor) -> list[Tensor]:
        """Views of a buffer [heads, positions, width], or of its codes and its scales: three
        dimensions of positions and two of widths, in that order.
        """
        spans = buffer.unflatten(1, (-1, SPAN)).flatten(2)
        if self.kind == "full":
            return [_in_order(side, spans, LANES, 2)]
        codes = SPAN * codes_of(buffer.shape[2])
        lanes, together = (LANES, 2) if side == "keys" else (2, 1)
        return [
            _in_order(side, spans[..., :codes], LANES, 4),
            _in_order(side, spans[..., codes:], lanes, together),
        ]


def _in_order(side: str, spans: Tensor, lanes: int, together: int) -> Tensor:
    """See _usual_order. spans: [heads, spans, numbers]; lanes: positions of a panel of keys, or
    dimensions of one of values; together: neighbours of a sum that lie side by side.
    """
    if side == "keys":
        shape, order = (SPAN // lanes, -1, lanes, together), (0, 1, 2, 4, 3, 5)
    else:
        shape, order = (-1, SPAN // together, lanes, together), (0, 1, 3, 5, 2, 4)
    return spans.unflatten(2, shape).permute(order)


def _filled(buffers: Buffers, others: Buffers) -> Buffers:
    """The buffers, and others where there are none."""
    pairs = zip(buffers, others, strict=True)
    return [other if buffer is None else buffer for buffer, other in pairs]


def _addresses(tensors: Buffers) -> "ctypes.Array[c_void_p]":
    """The addresses of tensors as a C array, which does not keep them alive."""
    found = (None if tensor is None else tensor.data_ptr() for tensor in tensors)
    return (c_void_p * len(tensors))(*found)
