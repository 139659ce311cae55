"""Keys and values of what the model has read, one growing buffer a layer, so that a chat prefills only what is new."""

import json
import os
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor


class KVCache:
    """Buffers [heads, capacity, head_dim] for keys and values of each layer; `length` positions are in use."""

    # Positions that there is room for at first, and those that lie together in memory, whatever their order is there.
    FIRST = 512
    BLOCK = 1

    def __init__(
        self, layers: int, heads: int, head_dim: int, dtype: torch.dtype, device: torch.device
    ):
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
        self._capacity = self.BLOCK * self._blocks(max(length, 2 * self._capacity, self.FIRST))
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
        for (_, mine), (_, theirs) in zip(self._sides(), other._sides(), strict=True):
            self._copy(theirs, mine, length)
        self.length = length

    def save(self, path: Path, ids: list[int], key: str) -> None:
        """Write keys and values of `ids`, which are in the cache, and what they belong to. The file appears when it is whole; only its owner reads it."""
        count = len(ids)
        tensors = {
            f"{side}.{layer}": self._read(side, part, count).contiguous()
            for side, parts in self._sides()
            for layer, part in enumerate(parts)
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
        """Take over what `save` wrote; returns the token ids. [] where there is no such file, or it is of another model or damaged."""
        try:
            with safe_open(path, "pt") as file:
                facts = file.metadata() or {}
                ids: list[int] = json.loads(facts.get("ids", "[]"))
                if facts.get("key") != key or not ids:
                    return []
                self.truncate(0)
                self.reserve(len(ids))
                for side, parts in self._sides():
                    for layer, part in enumerate(parts):
                        plain = file.get_tensor(f"{side}.{layer}")
                        if plain.shape != (part.shape[0], len(ids), part.shape[2]):
                            raise ValueError(f"{side} of {tuple(plain.shape)}")
                        self._write(side, part, plain)
        except (OSError, SafetensorError, ValueError, RuntimeError):
            return []
        self.length = len(ids)
        return ids

    def _sides(self) -> tuple[tuple[str, list[Tensor]], tuple[str, list[Tensor]]]:
        return ("keys", self._keys), ("values", self._values)

    def _read(self, side: str, part: Tensor, count: int) -> Tensor:
        """The first positions of a buffer: [heads, count, head_dim]."""
        return part[:, :count]

    def _write(self, side: str, part: Tensor, plain: Tensor) -> None:
        """The first positions of a buffer anew. plain: [heads, count, head_dim]"""
        part[:, : plain.shape[1]] = plain

    def _grown(self, old: list[Tensor]) -> list[Tensor]:
        layers, heads, head_dim = self._shape
        grown = [
            torch.empty(heads, self._capacity, head_dim, **self._options) for _ in range(layers)
        ]  # type: ignore[call-overload]
        self._copy(old, grown, self.length)
        return grown

    def _copy(self, old: list[Tensor], new: list[Tensor], length: int) -> None:
        whole = self.BLOCK * self._blocks(length)
        for source, target in zip(old, new, strict=False):
            target[:, :whole] = source[:, :whole]

    def _blocks(self, length: int) -> int:
        return -(-length // self.BLOCK)
