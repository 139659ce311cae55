"""Weights in the layout of the compiled step: `packed.bin`, described by `packed.json`.

Each begins at a multiple of 64 bytes. The table names for each weight its layout, its shape, and
where its bytes are; for weights whose columns have an order, where that is.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from llmchat.engines.checkpoint_files import PACKED_DATA, PACKED_TABLE, read_json
from llmchat.engines.transformers.bitsandbytes_format import Int8Tensors
from llmchat.engines.transformers.mapped_safetensors import ALIGNMENT, map_file
from llmchat.engines.transformers.quantised.packed import packed_bytes, unpacked
from llmchat.engines.transformers.quantised.types import GroupedWeight, PackedWeight
from llmchat.parse_guard import reading

DATA_FILE, TABLE_FILE = PACKED_DATA, PACKED_TABLE


class PackedWriter:
    """Writes the weights in any order; `close` writes the table."""

    def __init__(self, folder: Path):
        self._folder = folder
        self._file = (folder / DATA_FILE).open("wb")
        self._table: dict[str, Any] = {}

    def put(self, name: str, weight: PackedWeight) -> int:
        """Write a weight; returns its bytes."""
        entry = {"kind": weight.kind, "shape": list(weight.shape), "at": self._write(weight.data)}
        if weight.order is not None:
            entry["order"] = self._write(weight.order.view(torch.uint8))
        self._table[name] = entry
        return int(weight.data.numel())

    def close(self) -> None:
        self._file.close()
        (self._folder / TABLE_FILE).write_text(json.dumps(self._table) + "\n", "utf-8")

    def _write(self, data: Tensor) -> int:
        self._file.write(b"\0" * (-self._file.tell() % ALIGNMENT))
        start = self._file.tell()
        self._file.write(data.contiguous().numpy().data)
        return start


class PackedFile:
    """The weights of a folder, mapped: pages are read on first use, and the OS can evict them."""

    def __init__(self, folder: Path):
        with reading(folder / TABLE_FILE):
            self._table = read_json(folder / TABLE_FILE)
            self.shapes: dict[str, tuple[int, int]] = {
                name: _shape(entry["shape"]) for name, entry in self._table.items()
            }
            self._map = map_file(folder / DATA_FILE)
            for name in self._table:
                self._check(name)

    def get(self, name: str) -> PackedWeight:
        entry, shape = self._table[name], self.shapes[name]
        data = self._bytes(entry["at"], packed_bytes(entry["kind"], shape))
        order = None
        if "order" in entry:
            order = self._bytes(entry["order"], 8 * shape[1]).view(torch.int64)
        return PackedWeight(entry["kind"], data, shape, order)

    def size(self, name: str) -> int:
        return packed_bytes(self._table[name]["kind"], self.shapes[name])

    def _check(self, name: str) -> None:
        entry = self._table[name]
        sizes = {"at": self.size(name), "order": 8 * self.shapes[name][1]}
        for key, size in sizes.items():
            start = entry.get(key, 0)
            if type(start) is not int or start % ALIGNMENT or not 0 <= start <= self._end(size):
                raise ValueError(f"`{name}` is not where it says")

    def _end(self, size: int) -> int:
        return len(self._map) - size

    def _bytes(self, start: int, size: int) -> Tensor:
        return torch.frombuffer(self._map, dtype=torch.uint8, count=size, offset=start)


def _shape(value: Sequence[int]) -> tuple[int, int]:
    out, in_ = value
    if type(out) is not int or type(in_) is not int or out < 1 or in_ < 1:
        raise ValueError(f"{value} is not the shape of a matrix")
    return out, in_


class PackedTensors(Int8Tensors):
    """The tensors of a prepared copy of a quantised model: what is not packed is in safetensors."""

    def __init__(
        self,
        folder: Path,
        files: Sequence[Path],
        config: dict[str, Any],
        head: Path | None,
        untied: bool,
    ):
        super().__init__(files, config, head, untied)
        self._packed = PackedFile(folder)
        self.shapes = self.shapes | self._packed.shapes

    def get(self, name: str) -> Tensor:
        weight = self.grouped(name)
        return super().get(name) if weight is None else weight.dequantised()

    def int8(self, *names: str) -> tuple[Tensor, Tensor] | None:
        return None if self._packed.shapes.keys() & set(names) else super().int8(*names)

    def grouped(self, name: str) -> GroupedWeight | None:
        weight = self.packed(name)
        return None if weight is None else unpacked(weight)

    def packed(self, name: str) -> PackedWeight | None:
        return self._packed.get(name) if name in self._packed.shapes else None

    def stored_size(self, name: str) -> int | None:
        return self._packed.size(name) if name in self._packed.shapes else None
