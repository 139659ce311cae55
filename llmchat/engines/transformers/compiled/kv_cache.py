"""A KV cache whose buffers have the layout of csrc/kv_layout.h. On disk it has the usual one."""

import torch
from torch import Tensor

from llmchat.engines.transformers.compiled.structs import LANES, SPAN, addresses
from llmchat.engines.transformers.pytorch.kv_cache import KVCache


class CompiledCache(KVCache):
    """keys, values: C arrays of the addresses of each layer's buffers, which `reserve` may move."""

    # Untouched memory costs nothing, but growing copies: a large first buffer is cheap.
    FIRST = 2048
    BLOCK = SPAN

    def __init__(self, layers: int, heads: int, head_dim: int):
        super().__init__(layers, heads, head_dim, torch.bfloat16, torch.device("cpu"))
        self.shape = (layers, heads, head_dim)
        self._find_buffers()

    def reserve(self, length: int) -> None:
        before = self.capacity
        super().reserve(length)
        if self.capacity != before:
            self._find_buffers()

    def _find_buffers(self) -> None:
        self.keys, self.values = addresses(self._keys), addresses(self._values)

    def _load_positions(self, side: str, buffer: Tensor, count: int) -> Tensor:
        blocks = buffer[:, : self._whole_blocks(count)]
        return self._usual_order(side, blocks).reshape(blocks.shape)[:, :count]

    def _store_positions(self, side: str, buffer: Tensor, positions: Tensor) -> None:
        heads, count, dim = positions.shape
        blocks = torch.zeros(heads, self._whole_blocks(count), dim, dtype=positions.dtype)
        blocks[:, :count] = positions
        view = self._usual_order(side, buffer[:, : blocks.shape[1]])
        view.copy_(blocks.view(view.shape))

    def _usual_order(self, side: str, buffer: Tensor) -> Tensor:
        """A view of [heads, positions, head_dim] whose dimensions, flattened, are in that order."""
        spans, dim = buffer.shape[1] // SPAN, buffer.shape[2]
        if side == "keys":
            shape, order = (SPAN // LANES, dim // 2, LANES, 2), (0, 1, 2, 4, 3, 5)
        else:
            shape, order = (dim // LANES, SPAN // 2, LANES, 2), (0, 1, 3, 5, 2, 4)
        return buffer.unflatten(1, (spans, SPAN)).flatten(2).unflatten(2, shape).permute(order)
