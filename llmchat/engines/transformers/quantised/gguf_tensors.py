"""The tensors of a GGUF file under the names of a plan, mapped from the file.

What llama.cpp's converter does to a tensor is undone here (gguf_places.py): the rows of rotary
heads are put back in order, which moves whole rows and rounds nothing, norms that multiply with
1 + weight lose the 1, and so on.
"""

import mmap
from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import prod
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from llmchat.engines.checkpoint_files import GGUF_POINTER, read_json
from llmchat.engines.transformers.families import plan_of
from llmchat.engines.transformers.families.names import tensor_names
from llmchat.engines.transformers.mapped_safetensors import map_file
from llmchat.engines.transformers.quantised import gguf_types
from llmchat.engines.transformers.quantised.gguf_names import Places, layer_of
from llmchat.engines.transformers.quantised.gguf_places import Columns, Piece, Rows, Stored
from llmchat.engines.transformers.quantised.packing import pack_by_parts
from llmchat.engines.transformers.quantised.types import GroupedWeight, PackedWeight
from llmchat.engines.transformers.tensors import FloatTensors
from llmchat.errors import IntegrityError, Mismatch
from llmchat.gguf_file import GgufHeader, TensorInfo, read_header
from llmchat.gguf_file.architectures import ARCHITECTURES


def open_gguf(base: Path, config: Mapping[str, Any]) -> "GgufTensors":
    """The tensors of the file that a folder points to."""
    pointer = read_json(base / GGUF_POINTER)
    return GgufTensors([base / name for name in pointer["files"]], config)


class GgufTensors(FloatTensors):
    """files: one, or the parts of a file in their order. config: as gguf_file.config makes it.

    Raises Mismatch for a model that has no plan.
    """

    def __init__(self, files: Sequence[Path], config: Mapping[str, Any]):
        headers = [read_header(file) for file in files]
        self._files = {
            name: file
            for file, header in zip(files, headers, strict=True)
            for name in header.tensors
        }
        self._infos = {name: info for header in headers for name, info in header.tensors.items()}
        self._stored = _stored(headers[0], self._infos, config)
        self._numbers = _numbers(headers[0], config)
        self.shapes: dict[str, tuple[int, ...]] = {
            name: self._shape_of(name, stored) for name, stored in self._stored.items()
        } | {name: (1,) for name in self._numbers}

    def get(self, name: str) -> Tensor:
        if name in self._numbers:
            return torch.tensor([self._numbers[name]])
        stored = self._stored[name]
        return stored.read([self._values(piece) for piece in stored.pieces])

    def grouped(self, name: str) -> GroupedWeight | None:
        if self.stored_size(name) is None:
            return None
        return self._grouped(name, self._rows(name))

    def packed(self, name: str) -> PackedWeight | None:
        """Brought into the layout now, a part of the rows after the other."""
        if self.stored_size(name) is None:
            return None
        rows = self._rows(name)
        return pack_by_parts(lambda part: self._grouped(name, rows[part]), self.shapes[name], name)

    def _grouped(self, name: str, rows: Tensor) -> GroupedWeight:
        stored = self._stored[name]
        weight = gguf_types.grouped(self._infos[stored.pieces[0].name].type, rows)
        assert weight is not None
        if not _is_finite(weight):
            raise IntegrityError(
                f"the tensor `{stored.pieces[0].name}` has scales that are not finite numbers",
                "download the file again, or another one",
            )
        for change in stored.changes:
            if isinstance(change, Columns):
                weight = replace(weight, order=torch.argsort(change.order(weight.shape[1])))
        return weight

    def stored_size(self, name: str) -> int | None:
        if name in self._numbers:
            return None
        stored = self._stored[name]
        kinds = {self._infos[piece.name].type for piece in stored.pieces}
        if len(self.shapes[name]) != 2 or not stored.keeps_rows or len(kinds) > 1:
            return None
        (kind,) = kinds
        if not gguf_types.has_groups(kind):
            return None
        return prod(self.shapes[name]) // kind.block * kind.bytes

    def _values(self, piece: Piece) -> Tensor:
        info = self._infos[piece.name]
        return gguf_types.plain(info.type, self._data(piece), self._shape(piece))

    def _shape(self, piece: Piece) -> tuple[int, ...]:
        """Of what a piece is in the file. Raises IndexError or ValueError for one that has none."""
        shape = self._infos[piece.name].shape
        if piece.index is not None:
            if not 0 <= piece.index < shape[0]:
                raise ValueError(f"it has no matrix {piece.index}")
            shape = shape[1:]
        if piece.count and piece.first + piece.count > shape[0]:
            raise ValueError("it has too few rows")
        return (piece.count, *shape[1:]) if piece.count else shape

    def _shape_of(self, name: str, stored: Stored) -> tuple[int, ...]:
        pieces = stored.pieces
        try:
            if stored.is_plain:
                return self._shape(pieces[0])
            empty = [torch.empty(self._shape(piece), device="meta") for piece in pieces]
            return tuple(stored.read(empty).shape)
        except (IndexError, RuntimeError, ValueError) as error:
            raise IntegrityError(
                f"the tensor `{pieces[0].name}` does not fit the model: {error}"
            ) from error

    def _data(self, piece: Piece) -> Tensor:
        """The bytes of a piece: uint8 [rows, bytes of a row]."""
        info = self._infos[piece.name]
        data, shape = _bytes(map_file(self._files[piece.name]), info), self._shape(piece)
        if piece.index is not None:
            data = data.view(info.shape[0], -1)[piece.index]
        if piece.count:
            whole = info.shape[0 if piece.index is None else 1]
            data = data.view(whole, -1)[piece.first : piece.first + piece.count]
        return data.reshape(shape[0] if len(shape) > 1 else 1, -1)

    def _rows(self, name: str) -> Tensor:
        """The bytes of a matrix that keeps its numbers: uint8 [rows, bytes of a row]."""
        stored = self._stored[name]
        parts = [self._data(piece) for piece in stored.pieces]
        rows = parts[0] if len(parts) == 1 else torch.cat(parts)
        for change in stored.changes:
            if isinstance(change, Rows):
                rows = change.read(rows)
        return rows


def _bytes(data: mmap.mmap, info: TensorInfo) -> Tensor:
    if not info.size:
        return torch.empty(0, dtype=torch.uint8)
    return torch.frombuffer(data, dtype=torch.uint8, count=info.size, offset=info.offset)


def _is_finite(weight: GroupedWeight) -> bool:
    parts = (weight.scale, weight.minimum)
    return all(part is None or bool(torch.isfinite(part).all()) for part in parts)


def _stored(
    header: GgufHeader, infos: Mapping[str, TensorInfo], config: Mapping[str, Any]
) -> dict[str, Stored]:
    """The place of each tensor of the plan that the file has."""
    plan, arch = plan_of(config), str(header.facts.get("general.architecture"))
    if plan is None:
        raise Mismatch(
            f"GGUF files of the architecture `{arch}` do not run in this engine",
            "`--engine gguf` runs them in llama.cpp",
        )
    places = Places(plan, arch, config)
    found: dict[str, Stored] = {}
    for name in tensor_names(plan):
        for stored in places.of(name):
            if all(piece.name in infos for piece in stored.pieces):
                found[name] = stored
                break
    return found


def _numbers(header: GgufHeader, config: Mapping[str, Any]) -> dict[str, float]:
    """The tensors of a plan that are single numbers in the header, one a layer."""
    plan, arch = plan_of(config), str(header.facts.get("general.architecture"))
    found: dict[str, float] = {}
    if plan is None:
        return found
    for end, key in ARCHITECTURES[arch].numbers.items():
        values = header.facts.get(key)
        listed = values if isinstance(values, list) else [values] * len(plan.all_layers)
        for name in tensor_names(plan):
            if name.endswith(end):
                found[name] = _number(listed, layer_of(name), key)
    return found


def _number(values: list[Any], layer: int, key: str) -> float:
    if layer >= len(values) or not isinstance(values[layer], int | float):
        raise IntegrityError(f"the header has no `{key}` of layer {layer}")
    return float(values[layer])
