"""The tensors of a GGUF file under the names of a plan, mapped from the file.

What llama.cpp's converter does to a tensor is undone here (gguf_names.py): the rows of rotary heads
are put back in order, which moves whole rows and rounds nothing, and norms that multiply with
1 + weight lose the 1.
"""

import mmap
from collections.abc import Mapping, Sequence
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
from llmchat.engines.transformers.quantised.gguf_names import (
    Stored,
    name_table,
    stored_as,
    stored_name,
)
from llmchat.engines.transformers.quantised.packing import pack_by_parts
from llmchat.engines.transformers.quantised.types import GroupedWeight, PackedWeight
from llmchat.engines.transformers.tensors import FloatTensors
from llmchat.errors import IntegrityError, Mismatch
from llmchat.gguf_file import GgufHeader, TensorInfo, read_header


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
        self.shapes: dict[str, tuple[int, ...]] = {
            name: self._shape(stored) for name, stored in self._stored.items()
        }

    def get(self, name: str) -> Tensor:
        stored = self._stored[name]
        info = self._infos[stored.name]
        values = gguf_types.plain(info.type, self._rows(stored), self.shapes[name])
        return values - stored.shift if stored.shift else values

    def grouped(self, name: str) -> GroupedWeight | None:
        if self.stored_size(name) is None:
            return None
        return self._grouped(name, self._rows(self._stored[name]))

    def packed(self, name: str) -> PackedWeight | None:
        """Brought into the layout now, a part of the rows after the other."""
        if self.stored_size(name) is None:
            return None
        rows = self._rows(self._stored[name])
        return pack_by_parts(lambda part: self._grouped(name, rows[part]), self.shapes[name], name)

    def _grouped(self, name: str, rows: Tensor) -> GroupedWeight:
        weight = gguf_types.grouped(self._infos[self._stored[name].name].type, rows)
        assert weight is not None
        if not _is_finite(weight):
            raise IntegrityError(
                f"the tensor `{self._stored[name].name}` has scales that are not finite numbers",
                "download the file again, or another one",
            )
        return weight

    def stored_size(self, name: str) -> int | None:
        stored = self._stored[name]
        info = self._infos[stored.name]
        if len(self.shapes[name]) != 2 or not gguf_types.has_groups(info.type):
            return None
        return info.size if stored.expert is None else info.size // info.shape[0]

    def _shape(self, stored: Stored) -> tuple[int, ...]:
        shape = self._infos[stored.name].shape
        if stored.is_kernel and len(shape) == 2:
            return shape[0], 1, shape[1]
        if stored.norms:
            return (prod(shape),)
        return shape if stored.expert is None else shape[1:]

    def _rows(self, stored: Stored) -> Tensor:
        """The bytes of a tensor: uint8 [rows, bytes of a row], in the order of the checkpoint."""
        info = self._infos[stored.name]
        data = _bytes(map_file(self._files[stored.name]), info)
        if stored.expert is not None:
            data = data.view(info.shape[0], -1)[stored.expert]
        shape = self._shape(stored)
        rows = data.view(shape[0] if len(shape) > 1 else 1, -1)
        if not stored.heads:
            return rows
        flat = rows.view(shape[0], -1)
        order = torch.arange(shape[0]).view(stored.heads, -1, 2).transpose(1, 2).flatten()
        return flat[order].view(rows.shape)


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
    table = name_table(arch, int(config["num_hidden_layers"]))
    found: dict[str, Stored] = {}
    for name in tensor_names(plan):
        theirs = stored_name(name, table)
        if theirs in infos:
            found[name] = stored_as(name, theirs, arch, config)
            _check_expert(found[name], infos[theirs])
    return found


def _check_expert(stored: Stored, info: TensorInfo) -> None:
    number = stored.expert
    if number is not None and (len(info.shape) < 2 or number >= info.shape[0]):
        raise IntegrityError(f"the tensor `{stored.name}` has no expert {number}")
