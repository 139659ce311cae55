"""Keys and values of what the model has read, one growing buffer a layer, so that a chat prefills only what is new."""

import torch
from torch import Tensor

_FIRST_CAPACITY = 512


class KVCache:
    """Buffers [heads, capacity, head_dim] for keys and values of each layer; `length` positions are in use."""

    def __init__(self, layers: int, heads: int, head_dim: int, dtype: torch.dtype, device: torch.device):
        self.length = 0
        self._shape = (layers, heads, head_dim)
        self._options = {"dtype": dtype, "device": device}
        self._capacity = 0
        self._keys: list[Tensor] = []
        self._values: list[Tensor] = []

    def reserve(self, length: int) -> None:
        """Make room for `length` positions, at least doubling, so that growing costs little in all."""
        if length <= self._capacity:
            return
        self._capacity = max(length, 2 * self._capacity, _FIRST_CAPACITY)
        self._keys = self._grown(self._keys)
        self._values = self._grown(self._values)

    def append(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Write [heads, new, head_dim] behind what is there; returns all of the layer, [heads, length + new, head_dim].

        `length` moves when the last layer has been written, see `advance`.
        """
        end = self.length + keys.shape[1]
        self._keys[layer][:, self.length : end] = keys
        self._values[layer][:, self.length : end] = values
        return self._keys[layer][:, :end], self._values[layer][:, :end]

    def advance(self, count: int) -> None:
        self.length += count

    def truncate(self, length: int) -> int:
        self.length = min(self.length, length)
        return self.length

    def copy_from(self, other: "KVCache", length: int) -> None:
        """Take over the first `length` positions of another text that begins in the same way."""
        self.truncate(0)
        self.reserve(length)
        for mine, theirs in ((self._keys, other._keys), (self._values, other._values)):
            for target, source in zip(mine, theirs, strict=True):
                target[:, :length] = source[:, :length]
        self.length = length

    def _grown(self, old: list[Tensor]) -> list[Tensor]:
        layers, heads, head_dim = self._shape
        grown = [torch.empty(heads, self._capacity, head_dim, **self._options) for _ in range(layers)]  # type: ignore[call-overload]
        for source, target in zip(old, grown, strict=False):
            target[:, : self.length] = source[:, : self.length]
        return grown
