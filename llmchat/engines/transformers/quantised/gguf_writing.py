"""Writes a model that has a plan as a GGUF file, a part of a tensor in memory at a time.

What gguf_tensors.py undoes is done here (gguf_places.py): rotary heads are interleaved, experts
are stacked, norms get the 1 that llama.cpp does not add, and so on.
"""

import struct
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from llmchat.engines.transformers.families.names import tensor_names
from llmchat.engines.transformers.families.plan import Plan
from llmchat.engines.transformers.quantised import gguf_kinds
from llmchat.engines.transformers.quantised.gguf_names import name_table, places_of
from llmchat.engines.transformers.quantised.gguf_places import Stored
from llmchat.engines.transformers.tensors import Tensors
from llmchat.errors import Mismatch
from llmchat.gguf_file import GgmlType

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
    table = name_table(arch, len(plan.all_layers))
    found: dict[str, list[tuple[str, Stored, int]]] = {}
    for name in sorted(_needed(plan) & tensors.shapes.keys(), key=_natural):
        places = places_of(name, arch, table, config)
        if not places:
            raise Mismatch(
                f"GGUF files of the architecture `{arch}` have no tensor for `{name}`",
                "`--to int4` writes the model for llmchat",
            )
        for number, piece in enumerate(places[0].pieces):
            found.setdefault(piece.name, []).append((name, places[0], number))
    return [_target(name, parts, tensors, wanted) for name, parts in found.items()]


def _needed(plan: Plan) -> set[str]:
    """The names of a plan, without that of a head that is the embedding."""
    head = plan.head.linear
    return tensor_names(plan) - ({head.weight} if plan.head.is_tied else set())


def _natural(name: str) -> list[tuple[int, str]]:
    """Sorts layer 10 behind layer 9."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in name.split(".")]


def _target(
    name: str, sources: list[tuple[str, Stored, int]], tensors: Tensors, wanted: str
) -> Target:
    sources = sorted(sources, key=_place_in_target)
    first, stored, number = sources[0]
    shape = tuple(stored.written(torch.empty(tensors.shapes[first], device="meta"))[number].shape)
    if stored.pieces[number].count:
        rows = sum(stored.pieces[number].count for _, stored, number in sources)
        shape = rows, *shape[1:]
    if stored.pieces[number].index is not None:
        shape = len(sources), *shape
    return Target(name, tuple(sources), shape, gguf_kinds.kind_of(name, shape, wanted))


def _place_in_target(source: tuple[str, Stored, int]) -> tuple[int, int]:
    _, stored, number = source
    piece = stored.pieces[number]
    return piece.index or 0, piece.first


def write(
    file: Path,
    facts: Mapping[str, Any],
    targets: list[Target],
    factors: Mapping[str, list[float]],
    tensors: Tensors,
    advance: Callable[[int], None] = lambda count: None,
) -> None:
    """Write the file. facts: every key, in full. factors: tensors of float32 by their names.
    advance: called with the bytes of each part.
    """
    _write_header(file, facts, targets, factors)
    with file.open("ab") as opened:
        for part in _parts(targets, factors, tensors, opened.tell()):
            opened.write(part)
            advance(len(part))


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
    targets: list[Target], factors: Mapping[str, list[float]], tensors: Tensors, start: int
) -> Iterator[bytes]:
    """The bytes behind the header, which ends at `start`: each tensor begins at a multiple of the
    alignment.
    """
    yield bytes(-start % _ALIGNMENT)
    for values in factors.values():
        yield _padded(struct.pack(f"<{len(values)}f", *values))
    for target in targets:
        for name, stored, number in target.sources:
            for part in _numbers(name, stored, number, tensors):
                yield from gguf_kinds.encoded(part, target.kind, name)
        yield bytes(-target.size % _ALIGNMENT)


def _numbers(name: str, stored: Stored, number: int, tensors: Tensors) -> Iterator[Tensor]:
    """The numbers of a piece in their order in the file. A weight in few bits is dequantised some
    rows at a time: in 32 bits, an embedding has gigabytes.
    """
    weight = tensors.grouped(name) if stored.is_plain else None
    if weight is None:
        yield stored.written(tensors.get(name))[number]
        return
    count = max(1, gguf_kinds.AT_ONCE // weight.shape[1])
    for first in range(0, weight.shape[0], count):
        yield weight.rows(first, count).dequantised()


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % _ALIGNMENT)
