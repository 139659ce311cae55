"""compressed-tensors: integers packed densely in 32-bit words, integers and 8-bit floats number by
number, and MXFP4; each module as the config group says whose target names it.
"""

import struct
from collections.abc import Iterator, Mapping
from typing import Any

from llmchat.errors import IntegrityError, Mismatch
from llmchat.parse_guard import shown
from llmchat.quantisation import fp8
from llmchat.quantisation.config import Table, number, refusal
from llmchat.quantisation.mxfp4 import GROUP
from llmchat.quantisation.parts import (
    HINT,
    blocks,
    matrix,
    modules_with,
    parts_of,
    require,
    size_of,
    wrong,
)
from llmchat.quantisation.types import Facts, ReadSmall, StoredWeight

_SCALES = (*fp8.SCALE_TYPES, "U8")


def find(facts: Facts, table: Table, read: ReadSmall) -> dict[str, StoredWeight]:
    """The weights by name. variant: "symmetric" where no zero point is stored."""
    _refuse_transforms(table)
    groups = list(_groups(table))
    found = {}
    for module in modules_with(facts, ".weight_packed"):
        found[f"{module}.weight"] = _packed(facts, module, _arguments(groups, module), read)
    for module in modules_with(facts, ".weight_scale"):
        if f"{module}.weight" in facts:
            found[f"{module}.weight"] = _numbers(facts, module, _arguments(groups, module))
    return found


def _refuse_transforms(table: Table) -> None:
    """Rotations are part of such a model, and sparse weights are stored in another way."""
    transforms = table.get("transform_config")
    if isinstance(transforms, dict) and transforms.get("config_groups"):
        raise refusal("rotated weights of compressed-tensors (`transform_config`)")
    sparsity = table.get("sparsity_config")
    if isinstance(sparsity, dict) and sparsity.get("format", "dense") != "dense":
        raise refusal(f"sparse weights of compressed-tensors (`{sparsity.get('format')}`)")


def _groups(table: Table) -> Iterator[tuple[list[str], Mapping[str, Any]]]:
    """Targets, and the arguments of their weights. Raises IntegrityError without a valid group."""
    groups = table.get("config_groups")
    for group in groups.values() if isinstance(groups, dict) else ():
        weights = group.get("weights") if isinstance(group, dict) else None
        if isinstance(weights, dict) and isinstance(group.get("targets"), list):
            yield [str(target) for target in group["targets"]], weights
        elif weights is not None or not isinstance(group, dict):
            raise IntegrityError("config.json: a group of `config_groups` is not valid")


def _arguments(groups: list[tuple[list[str], Mapping[str, Any]]], module: str) -> Mapping[str, Any]:
    """Of a module: of the group that names it, else of the first for a class such as Linear.

    Raises IntegrityError if no group is for it.
    """
    if len(groups) == 1:
        return groups[0][1]
    for targets, weights in groups:
        if any(_names(target, module) for target in targets):
            return weights
    for targets, weights in groups:
        if any(target.isidentifier() for target in targets):
            return weights
    raise IntegrityError(f"config.json: no group of `config_groups` is for `{shown(module)}`")


def _names(target: str, module: str) -> bool:
    """Whether a target is the name of a module, or a pattern (`re:`) that its start matches."""
    if not target.startswith("re:"):
        return target == module
    # Linear in time, whatever the pattern.
    import re2

    try:
        return re2.match(target[3:], module) is not None
    except re2.error as error:
        raise Mismatch(
            f"config.json: the pattern {shown(target)} of the quantisation is not supported"
        ) from error


def _packed(
    facts: Facts, module: str, arguments: Mapping[str, Any], read: ReadSmall
) -> StoredWeight:
    if facts[f"{module}.weight_packed"].dtype == "U8":
        return _four_bit_floats(facts, module)
    parts = parts_of(
        facts, module, ("weight_packed", "weight_scale"),
        ("weight_shape", "weight_zero_point", "weight_g_idx"),
    )  # fmt: skip
    out, words = matrix(facts, parts["weight_packed"], ("I32",))
    bits = _bits(arguments)
    in_ = _inputs(facts, parts, out, words, bits, arguments, read)
    block = _block(facts, parts["weight_scale"], (out, in_), arguments)
    variant = _zeros(facts, module, parts, (out, in_), bits, block, arguments)
    if "weight_g_idx" in parts:
        require(facts, parts["weight_g_idx"], (in_,))
    size = size_of(facts, list(parts.values()))
    return StoredWeight(
        "packed", f"compressed-tensors int{bits}", (out, in_), parts, size, bits, block, variant
    )


def _bits(arguments: Mapping[str, Any]) -> int:
    bits = number(arguments, "num_bits", otherwise=8)
    if not 2 <= bits <= 8:
        raise refusal(f"integers of {bits} bits")
    return bits


def _inputs(
    facts: Facts,
    parts: Mapping[str, str],
    out: int,
    words: int,
    bits: int,
    arguments: Mapping[str, Any],
    read: ReadSmall,
) -> int:
    """Inputs of a packed weight: written beside it. Else they follow from its groups or words."""
    if read is not None and "weight_shape" in parts:
        shape = _two_numbers(facts, parts["weight_shape"], read)
        if shape[0] != out or blocks(shape[1] * bits, 32) != words:
            raise wrong(parts["weight_packed"], facts[parts["weight_packed"]], f"codes of {shape}")
        return shape[1]
    group = number(arguments, "group_size", otherwise=-1)
    counted = group * (facts[parts["weight_scale"]].shape or (0,))[-1]
    return counted if counted > 0 and blocks(counted * bits, 32) == words else words * 32 // bits


def _two_numbers(facts: Facts, name: str, read: Any) -> tuple[int, int]:
    width = {"I64": "q", "I32": "i"}.get(facts[name].dtype)
    if width is None or facts[name].shape != (2,):
        raise wrong(name, facts[name], "two whole numbers")
    rows, in_ = struct.unpack(f"<2{width}", read(name))
    return rows, in_


def _block(
    facts: Facts, scale: str, shape: tuple[int, int], arguments: Mapping[str, Any]
) -> tuple[int, int]:
    group = number(arguments, "group_size", otherwise=-1)
    stated = (1, group) if group > 0 else fp8.block_sizes(arguments.get("block_structure"))
    return fp8.scale_block(facts, shape, scale, stated)


def _zeros(
    facts: Facts,
    module: str,
    parts: Mapping[str, str],
    shape: tuple[int, int],
    bits: int,
    block: tuple[int, int],
    arguments: Mapping[str, Any],
) -> str:
    """The variant. Raises IntegrityError where zero points are missing, or do not fit."""
    if arguments.get("symmetric", True):
        return "symmetric"
    if "weight_zero_point" not in parts:
        raise IntegrityError(f"the quantised weight `{shown(module)}` has no zero points", HINT)
    name = parts["weight_zero_point"]
    rows, columns = blocks(shape[0], block[0]), blocks(shape[1], block[1])
    plain: tuple[tuple[int, ...], ...] = ((rows, columns),)
    if columns == 1:
        plain += ((rows,),) + (((), (1,)) if rows == 1 else ())
    packed = (blocks(rows * bits, 32), columns)
    expected = (packed,) if facts[name].dtype == "I32" else plain
    require(facts, name, *expected)
    return ""


def _four_bit_floats(facts: Facts, module: str) -> StoredWeight:
    parts = parts_of(facts, module, ("weight_packed", "weight_scale"))
    scale = facts[parts["weight_scale"]]
    if f"{module}.weight_global_scale" in facts or scale.dtype not in ("U8", "F8_E8M0"):
        raise refusal("NVFP4")
    out, count = matrix(facts, parts["weight_packed"], ("U8",))
    require(facts, parts["weight_scale"], (out, blocks(2 * count, GROUP)))
    parts = {"blocks": parts["weight_packed"], "scales": parts["weight_scale"]}
    size = size_of(facts, list(parts.values()))
    return StoredWeight("mxfp4", "MXFP4", (out, 2 * count), parts, size, 4, (1, GROUP))


def _numbers(facts: Facts, module: str, arguments: Mapping[str, Any]) -> StoredWeight:
    """A weight whose numbers are stored one by one: integers, or 8-bit floats."""
    name, scale = f"{module}.weight", f"{module}.weight_scale"
    fact = facts[name]
    if fact.dtype not in ("I8", *fp8.TYPES) or len(fact.shape) != 2:
        raise wrong(name, fact, "a matrix of I8 or F8_E4M3")
    shape = fact.shape[0], fact.shape[1]
    block = _block(facts, scale, shape, arguments)
    parts = {"weight": name, "scale": scale}
    if fact.dtype in fp8.TYPES:
        size = size_of(facts, list(parts.values()))
        return StoredWeight("floats", fp8.TYPES[fact.dtype], shape, parts, size, 8, block)
    bits = _bits(arguments)
    if f"{module}.weight_zero_point" in facts:
        parts["weight_zero_point"] = f"{module}.weight_zero_point"
    variant = _zeros(facts, module, parts, shape, bits, block, arguments)
    size = size_of(facts, list(parts.values()))
    return StoredWeight(
        "integers", f"compressed-tensors int{bits}", shape, parts, size, bits, block, variant
    )
