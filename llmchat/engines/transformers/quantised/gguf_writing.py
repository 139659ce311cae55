"""Writes a model that has a plan as a GGUF file, a part of a tensor in memory at a time.

What gguf_tensors.py undoes is done here (gguf_places.py): rotary heads are interleaved, experts
are stacked, norms get the 1 that llama.cpp does not add, and so on.
"""

import os
import struct
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from llmchat.engines.transformers.families.names import tensor_names
from llmchat.engines.transformers.families.plan import Plan
from llmchat.engines.transformers.quantised import gguf_kinds
from llmchat.engines.transformers.quantised.gguf_names import Places
from llmchat.engines.transformers.quantised.gguf_places import Columns, Rows, Stored
from llmchat.engines.transformers.quantised.types import GroupedWeight
from llmchat.engines.transformers.tensors import Tensors
from llmchat.errors import Mismatch
from llmchat.gguf_file import GgmlType
from llmchat.gguf_file.architectures import ARCHITECTURES
from llmchat.gguf_file.mixes import Facts

_ALIGNMENT = 32


class Target(NamedTuple):
    """A tensor of the file. sources: tensors of the plan, each with its place and the number of the
    piece in it, in their order.
    """

    name: str
    sources: tuple[tuple[str, Stored, int], ...]
    shape: tuple[int, ...]
    kind: GgmlType

    @property
    def size(self) -> int:
        return gguf_kinds.size_of(self.kind, self.shape)


def targets_of(
    plan: Plan, tensors: Tensors, arch: str, config: Mapping[str, Any], wanted: str
) -> list[Target]:
    """The tensors of the file of a plan that is bound to `tensors`, in the order of its layers.

    Raises Mismatch for a tensor that files of the architecture cannot hold.
    """
    places = Places(plan, arch, config)
    numbers = tuple(ARCHITECTURES[arch].numbers)
    found: dict[str, list[tuple[str, Stored, int]]] = {}
    for name in sorted(_needed(plan) & tensors.shapes.keys(), key=_natural):
        if numbers and name.endswith(numbers):
            continue
        stored = next(iter(places.of(name)), None)
        if stored is None:
            raise Mismatch(
                f"GGUF files of the architecture `{arch}` have no tensor for `{name}`",
                "`--to int4` writes the model for llmchat",
            )
        for number, piece in enumerate(stored.pieces):
            found.setdefault(piece.name, []).append((name, stored, number))
    sources = {name: tuple(sorted(parts, key=_place_in_target)) for name, parts in found.items()}
    shapes = {name: _shape(parts, tensors) for name, parts in sources.items()}
    facts = Facts(len(plan.all_layers), _experts(shapes), _queries_of_a_key(config), arch)
    kinds = gguf_kinds.kinds_of(shapes, wanted, facts)
    return [Target(name, parts, shapes[name], kinds[name]) for name, parts in sources.items()]


def _experts(shapes: Mapping[str, tuple[int, ...]]) -> int:
    """How many experts a layer has; 0 for a model without."""
    return max((shape[0] for name, shape in shapes.items() if "_exps." in name), default=0)


def _queries_of_a_key(config: Mapping[str, Any]) -> int:
    """How many heads of queries share a head of keys."""
    heads = config.get("num_attention_heads")
    keys = config.get("num_key_value_heads") or heads
    return heads // keys if isinstance(heads, int) and isinstance(keys, int) else 1


def numbers_of(plan: Plan, tensors: Tensors, arch: str) -> dict[str, list[float]]:
    """The facts that are tensors of one number in the plan, one a layer."""
    found: dict[str, list[float]] = {}
    names = sorted(tensor_names(plan) & tensors.shapes.keys(), key=_natural)
    for end, key in ARCHITECTURES[arch].numbers.items():
        values = [tensors.get(name).float().item() for name in names if name.endswith(end)]
        found |= {key: values} if values else {}
    return found


def _needed(plan: Plan) -> set[str]:
    """The names of a plan, without that of a head that is the embedding."""
    head = plan.head.linear
    return tensor_names(plan) - ({head.weight} if plan.head.is_tied else set())


def _natural(name: str) -> list[tuple[int, str]]:
    """Sorts layer 10 behind layer 9."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in name.split(".")]


def _shape(sources: tuple[tuple[str, Stored, int], ...], tensors: Tensors) -> tuple[int, ...]:
    """The shape of a tensor of the file, of its sources in their order."""
    first, stored, number = sources[0]
    shape = tuple(stored.written(torch.empty(tensors.shapes[first], device="meta"))[number].shape)
    pieces = [stored.pieces[number] for _, stored, number in sources]
    matrices = {piece.index for piece in pieces}
    if pieces[0].count:
        shape = sum(piece.count for piece in pieces) // len(matrices), *shape[1:]
    return shape if pieces[0].index is None else (len(matrices), *shape)


def _place_in_target(source: tuple[str, Stored, int]) -> tuple[int, int]:
    _, stored, number = source
    piece = stored.pieces[number]
    return piece.index or 0, piece.first


class Counts:
    """How many matrices in few bits were copied as they are, of all that were quantised before."""

    def __init__(self) -> None:
        self.copied = self.quantised = 0


def write(
    file: Path,
    facts: Mapping[str, Any],
    targets: list[Target],
    factors: Mapping[str, list[float]],
    tensors: Tensors,
    advance: Callable[[int], None] = lambda count: None,
    measure: Callable[[], Mapping[str, Tensor]] = dict,
) -> Counts:
    """Write the file. facts: every key, in full. factors: tensors of float32 by their names.
    advance: called with the bytes of each part. measure: returns the importance of inputs by the
    name of a weight, asked for before the first fit.
    """
    _write_header(file, facts, targets, factors)
    counts = Counts()
    with file.open("ab") as opened:
        for part in _parts(targets, factors, _Encoder(tensors, measure, counts), opened.tell()):
            opened.write(part)
            advance(len(part))
        opened.flush()
        os.fsync(opened.fileno())
    return counts


def _write_header(
    file: Path,
    facts: Mapping[str, Any],
    targets: list[Target],
    factors: Mapping[str, list[float]],
) -> None:
    import gguf
    import numpy

    writer = gguf.GGUFWriter(str(file), str(facts["general.architecture"]))
    for name, value in facts.items():
        if name != "general.architecture":
            writer.add_key_value(name, value, _type_of(value))
    for name, values in factors.items():
        writer.add_tensor_info(name, (len(values),), numpy.dtype("f4"), 4 * len(values))
    for target in targets:
        kind = gguf.GGMLQuantizationType[target.kind.name]
        writer.add_tensor_info(target.name, target.shape, numpy.dtype("f4"), target.size, kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    writer.close()


def _type_of(value: Any) -> Any:
    import gguf

    kinds = gguf.GGUFValueType
    if type(value) is int:
        return kinds.UINT32
    return kinds.get_type(value)


def _parts(
    targets: list[Target], factors: Mapping[str, list[float]], encoder: "_Encoder", start: int
) -> Iterator[bytes]:
    """The bytes behind the header, which ends at `start`: each tensor begins at a multiple of the
    alignment.
    """
    yield bytes(-start % _ALIGNMENT)
    for values in factors.values():
        yield _padded(struct.pack(f"<{len(values)}f", *values))
    for target in targets:
        for name, stored, number in target.sources:
            yield from encoder.bytes_of(name, stored, number, target.kind)
        yield bytes(-target.size % _ALIGNMENT)


class _Encoder:
    """The bytes of tensors. A weight in few bits is copied where the wanted type holds its numbers,
    and dequantised some rows at a time where it does not: in 32 bits, an embedding has gigabytes.
    """

    def __init__(
        self, tensors: Tensors, measure: Callable[[], Mapping[str, Tensor]], counts: Counts
    ):
        self._tensors, self._importance, self._counts = tensors, cache(measure), counts

    def bytes_of(self, name: str, stored: Stored, number: int, kind: GgmlType) -> Iterator[bytes]:
        weight = self._tensors.grouped(name)
        if weight is not None:
            self._counts.quantised += number == 0
            moved = _moved(weight, stored)
            found = gguf_kinds.copied(moved, kind) if moved is not None else None
            if found is not None:
                self._counts.copied += 1
                yield found
                return
        importance = None
        if kind.name in gguf_kinds.FITTED:
            importance = _of_columns(self._importance().get(name), stored)
        for part in self._numbers(name, stored, number, weight):
            yield from gguf_kinds.encoded(part, kind, name, importance)

    def _numbers(
        self, name: str, stored: Stored, number: int, weight: GroupedWeight | None
    ) -> Iterator[Tensor]:
        """The numbers of a piece in their order in the file."""
        if weight is None or not stored.is_plain:
            yield stored.written(self._tensors.get(name))[number]
            return
        count = max(1, gguf_kinds.AT_ONCE // weight.shape[1])
        for first in range(0, weight.shape[0], count):
            yield weight.rows(first, count).dequantised()


def _moved(weight: GroupedWeight, stored: Stored) -> GroupedWeight | None:
    """A weight whose rows are in the order of the file; None where more than rows change."""
    if stored.is_plain:
        return weight
    moves_rows = all(isinstance(change, Rows) for change in stored.changes)
    if len(stored.pieces) > 1 or stored.pieces[0].changes or not moves_rows:
        return None
    rows = replace(weight, table=None, order=None).map(lambda one: stored.written(one)[0])
    return replace(rows, table=weight.table, order=weight.order)


def _of_columns(importance: Tensor | None, stored: Stored) -> Tensor | None:
    """The importance of columns in their order in the file; None where it is not known."""
    if importance is None or not stored.keeps_rows:
        return None
    for change in reversed(stored.changes):
        if isinstance(change, Columns):
            importance = change.write(importance)
    return importance


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % _ALIGNMENT)
