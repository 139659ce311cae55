"""AWQ: 4-bit codes and zero points packed along the outputs (gemm), or along the inputs (gemv)."""

from llmchat.errors import Mismatch
from llmchat.quantisation.config import Table, number, refusal
from llmchat.quantisation.gptq import group_size
from llmchat.quantisation.parts import (
    FLOATS,
    blocks,
    matrix,
    modules_with,
    parts_of,
    require,
    size_of,
    wrong,
)
from llmchat.quantisation.types import Facts, ReadSmall, StoredWeight

_CODES = 8


def find(facts: Facts, table: Table, read: ReadSmall) -> dict[str, StoredWeight]:
    """The weights by name. variant: "gemm" or "gemv"."""
    variant = str(table.get("version") or "gemm").lower()
    if variant not in ("gemm", "gemv"):
        raise refusal(f"AWQ in the layout `{variant}`")
    bits = number(table, "bits", "w_bit", otherwise=4)
    if bits != 4:
        raise Mismatch(f"the weights are AWQ of {bits} bits; llmchat runs AWQ of 4 bits")
    weight = _gemm if variant == "gemm" else _gemv
    return {
        f"{module}.weight": weight(facts, module, table)
        for module in modules_with(facts, ".qweight")
    }


def _gemm(facts: Facts, module: str, table: Table) -> StoredWeight:
    parts = parts_of(facts, module, ("qweight", "qzeros", "scales"))
    in_, words = matrix(facts, parts["qweight"], ("I32",))
    groups, out = matrix(facts, parts["scales"], FLOATS)
    if out != words * _CODES:
        raise wrong(parts["qweight"], facts[parts["qweight"]], f"codes of {out} outputs")
    matrix(facts, parts["qzeros"], ("I32",))
    require(facts, parts["qzeros"], (groups, words))
    block = (1, group_size(module, table, in_, groups))
    size = size_of(facts, list(parts.values()))
    return StoredWeight("awq", "AWQ 4-bit", (out, in_), parts, size, 4, block, "gemm")


def _gemv(facts: Facts, module: str, table: Table) -> StoredWeight:
    """Scales and zero points of a row are padded to whole words."""
    parts = parts_of(facts, module, ("qweight", "qzeros", "scales"))
    out, words = matrix(facts, parts["qweight"], ("I32",))
    rows, zero_words = matrix(facts, parts["qzeros"], ("I32",))
    matrix(facts, parts["scales"], FLOATS)
    require(facts, parts["scales"], (out, zero_words * _CODES))
    in_, stated = words * _CODES, number(table, "group_size", "q_group_size", otherwise=-1)
    groups = blocks(in_, stated) if stated > 0 else 1
    if rows != out or groups > zero_words * _CODES:
        raise wrong(parts["qzeros"], facts[parts["qzeros"]], f"zero points of {groups} groups")
    block = (1, group_size(module, table, in_, groups))
    size = size_of(facts, list(parts.values()))
    return StoredWeight("awq", "AWQ 4-bit", (out, in_), parts, size, 4, block, "gemv")
