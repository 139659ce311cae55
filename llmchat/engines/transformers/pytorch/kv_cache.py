"""The KV cache of one text, so that a chat prefills only what is new.

Which tokens it holds, and whether they fit a prompt, is the caller's business (prompt_caches.py).
"""

import json
import os
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor


class KVCache:
    """Growing buffers [heads, capacity, head_dim] for the keys and the values of each layer.

    `length` of the `capacity` positions are in use.
    """

    # The first capacity, and the positions that a layout keeps together: capacity is a multiple.
    FIRST = 512
    BLOCK = 1

    def __init__(
        self, layers: int, heads: int, head_dim: int, dtype: torch.dtype, device: torch.device
    ):
        self.length = 0
        self.capacity = 0
        self._shape = (layers, heads, head_dim)
        self._dtype, self._device = dtype, device
        self._keys: list[Tensor] = []
        self._values: list[Tensor] = []

    def reserve(self, length: int) -> None:
        """Make room for `length` positions; at least doubles the buffers that are too small."""
        if length <= self.capacity:
            return
        self.capacity = self._whole_blocks(max(length, 2 * self.capacity, self.FIRST))
        self._keys = self._grown(self._keys)
        self._values = self._grown(self._values)

    def append(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Write [heads, new, head_dim] after the `length` positions in use.

        Returns all of the layer, [heads, length + new, head_dim]; `advance` follows the last layer.
        """
        end = self.length + keys.shape[1]
        self._keys[layer][:, self.length : end] = keys
        self._values[layer][:, self.length : end] = values
        return self._keys[layer][:, :end], self._values[layer][:, :end]

    def advance(self, count: int) -> None:
        """Count what was appended to every layer."""
        self.length += count

    def truncate(self, length: int) -> int:
        """Forget all but the first `length` positions; returns how many are left."""
        self.length = min(self.length, length)
        return self.length

    def copy_from(self, other: "KVCache", length: int) -> None:
        """Hold the first `length` positions of another cache, and nothing else."""
        self.truncate(0)
        self.reserve(length)
        for (_, target), (_, source) in zip(self._sides(), other._sides(), strict=True):
            self._copy(source, target, length)
        self.length = length

    def save(self, path: Path, ids: list[int], key: str) -> None:
        """Write the keys and values of `ids`, which the cache holds, to a file.

        It appears when it is complete, and only its owner can read it. key: identifies the model
        and adapters that they belong to.
        """
        tensors = {
            f"{side}.{layer}": self._load_positions(side, buffer, len(ids)).contiguous()
            for side, buffers in self._sides()
            for layer, buffer in enumerate(buffers)
        }
        partial = path.with_name(f"{path.name}.{os.getpid()}")
        try:
            partial.touch(0o600)
            save_file(tensors, partial, metadata={"key": key, "ids": json.dumps(ids)})
            partial.chmod(0o600)
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)

    def load(self, path: Path, key: str) -> list[int]:
        """Hold what `save` wrote; returns the token ids.

        [] if there is no such file, or if it is damaged or of another model.
        """
        try:
            with safe_open(path, "pt") as file:
                metadata = file.metadata() or {}
                ids: list[int] = json.loads(metadata.get("ids", "[]"))
                if metadata.get("key") != key or not ids:
                    return []
                self._load_tensors(file.get_tensor, len(ids))
        except (OSError, SafetensorError, ValueError, RuntimeError):
            return []
        self.length = len(ids)
        return ids

    def _load_tensors(self, get: Callable[[str], Tensor], count: int) -> None:
        self.truncate(0)
        self.reserve(count)
        for side, buffers in self._sides():
            for layer, buffer in enumerate(buffers):
                positions = get(f"{side}.{layer}")
                if positions.shape != (buffer.shape[0], count, buffer.shape[2]):
                    raise ValueError(f"{side} of {tuple(positions.shape)}")
                self._store_positions(side, buffer, positions)

    def _sides(self) -> tuple[tuple[str, list[Tensor]], tuple[str, list[Tensor]]]:
        return ("keys", self._keys), ("values", self._values)

    def _load_positions(self, side: str, buffer: Tensor, count: int) -> Tensor:
        """The first positions of a buffer: [heads, count, head_dim]."""
        return buffer[:, :count]

    def _store_positions(self, side: str, buffer: Tensor, positions: Tensor) -> None:
        """Overwrite the first positions of a buffer with [heads, count, head_dim]."""
        buffer[:, : positions.shape[1]] = positions

    def _grown(self, old: list[Tensor]) -> list[Tensor]:
        layers, heads, head_dim = self._shape
        shape = heads, self.capacity, head_dim
        grown = [torch.empty(shape, dtype=self._dtype, device=self._device) for _ in range(layers)]
        self._copy(old, grown, self.length)
        return grown

    def _copy(self, sources: list[Tensor], targets: list[Tensor], length: int) -> None:
        end = self._whole_blocks(length)
        for source, target in zip(sources, targets, strict=False):
            target[:, :end] = source[:, :end]

    def _whole_blocks(self, length: int) -> int:
        """length, rounded up to whole blocks."""
        return -(-length // self.BLOCK) * self.BLOCK
