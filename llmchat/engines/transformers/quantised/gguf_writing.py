"""Writes a model that has a plan as a GGUF file, a part of a tensor in memory at a time.

What gguf_tensors.py undoes is done here: rotary heads are interleaved, experts are stacked, and
norms get the 1 that llama.cpp does not add.
"""

import struct
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from llmchat.engines.transformers.families.names import tensor_names
from llmchat.engines.transformers.families.plan import Plan
from llmchat.engines.transformers.quantised import gguf_kinds
from llmchat.engines.transformers.quantised.gguf_names import (
    Stored,
    name_table,
    stored_as,
    stored_name,
)
from llmchat.engines.transformers.tensors import Tensors
from llmchat.errors import Mismatch
from llmchat.gguf_file import GgmlType

_ALIGNMENT = 32


class Target(NamedTuple):
    """A tensor of the file. sources: its tensor of the plan, or one for each expert."""

    name: str
    sources: tuple[tuple[str, Stored], ...]
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
    found: dict[str, list[tuple[str, Stored]]] = {}
    for name in sorted(_needed(plan) & tensors.shapes.keys(), key=_natural):
        theirs = stored_name(name, table)
        if not theirs:
            raise Mismatch(
                f"GGUF files of the architecture `{arch}` have no tensor for `{name}`",
                "`--to int4` writes the model for llmchat",
            )
        found.setdefault(theirs, []).append((name, stored_as(name, theirs, arch, config)))
    return [_target(name, tuple(parts), tensors, wanted) for name, parts in found.items()]


def _needed(plan: Plan) -> set[str]:
    """The names of a plan, without that of a head that is the embedding."""
    head = plan.head.linear
    return tensor_names(plan) - ({head.weight} if plan.head.is_tied else set())


def _natural(name: str) -> list[tuple[int, str]]:
    """Sorts layer 10 behind layer 9."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in name.split(".")]


def _target(
    name: str, sources: tuple[tuple[str, Stored], ...], tensors: Tensors, wanted: str
) -> Target:
    sources = tuple(sorted(sources, key=lambda source: source[1].expert or 0))
    first, stored = sources[0]
    shape = stored.written_shape(tensors.shapes[first])
    shape = shape if stored.expert is None else (len(sources), *shape)
    return Target(name, sources, shape, gguf_kinds.kind_of(name, shape, wanted))


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
        for name, stored in target.sources:
            for part in _numbers(name, stored, tensors):
                yield from gguf_kinds.encoded(part, target.kind, name)
        yield bytes(-target.size % _ALIGNMENT)


def _numbers(name: str, stored: Stored, tensors: Tensors) -> Iterator[Tensor]:
    """The numbers of a tensor in their order in the file. A weight in few bits is dequantised some
    rows at a time: in 32 bits, an embedding has gigabytes.
    """
    weight = None if stored.heads else tensors.grouped(name)
    if weight is None:
        yield stored.written(tensors.get(name))
        return
    count = max(1, gguf_kinds.AT_ONCE // weight.shape[1])
    for first in range(0, weight.shape[0], count):
        yield weight.rows(first, count).dequantised()


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % _ALIGNMENT)
