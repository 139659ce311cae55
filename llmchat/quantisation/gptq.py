"""GPTQ: `qweight` packed along the inputs, `qzeros` along the outputs, `scales`, and `g_idx`, the
group of each input (act-order). Bits and groups follow from the shapes, so that a module may differ
from config.json, as `dynamic` of GPTQModel allows.
"""

from llmchat.errors import IntegrityError
from llmchat.parse_guard import shown
from llmchat.quantisation.config import Table, number, refusal
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

_BITS = (2, 3, 4, 8)


def find(facts: Facts, table: Table, read: ReadSmall) -> dict[str, StoredWeight]:
    """The weights by name. variant: "v1" where a zero point is stored less 1."""
    variant = _variant(table)
    return {
        f"{module}.weight": _weight(facts, module, table, variant)
        for module in modules_with(facts, ".qweight")
    }


def _variant(table: Table) -> str:
    written = str(table.get("checkpoint_format") or table.get("format") or "gptq").lower()
    variants = {"gptq": "v1", "gptq_v2": "v2"}
    if written not in variants:
        raise refusal(f"GPTQ in the layout `{written}`")
    return variants[written]


def _weight(facts: Facts, module: str, table: Table, variant: str) -> StoredWeight:
    parts = parts_of(facts, module, ("qweight", "qzeros", "scales"), ("g_idx",))
    words, out = matrix(facts, parts["qweight"], ("I32",))
    groups, zero_words = matrix(facts, parts["qzeros"], ("I32",))
    matrix(facts, parts["scales"], FLOATS)
    require(facts, parts["scales"], (groups, out))
    bits = zero_words * 32 // out
    if bits not in _BITS or zero_words * 32 != out * bits or words * 32 % bits:
        raise wrong(parts["qzeros"], facts[parts["qzeros"]], f"zero points of {out} outputs")
    in_ = words * 32 // bits
    if "g_idx" in parts:
        require(facts, parts["g_idx"], (in_,))
    group = group_size(module, table, in_, groups)
    size = size_of(facts, list(parts.values()))
    return StoredWeight(
        "gptq", f"GPTQ {bits}-bit", (out, in_), parts, size, bits, (1, group), variant
    )


def group_size(module: str, table: Table, in_: int, groups: int) -> int:
    """Inputs that share a scale. Raises IntegrityError if config.json and the scales disagree."""
    stated = number(table, "group_size", "q_group_size", otherwise=-1)
    group = in_ if stated <= 0 else stated
    if blocks(in_, group) == groups:
        return min(group, in_)
    if _varies(table) and in_ % groups == 0:
        return in_ // groups
    raise IntegrityError(
        f"the quantised weight `{shown(module)}` has {groups} groups of scales for {in_} inputs;"
        f" config.json has groups of {stated}",
        "config.json and weights must be of the same model",
    )


def _varies(table: Table) -> bool:
    """Whether modules differ: `dynamic` of GPTQModel, `extra_config` of AutoRound."""
    return bool(table.get("dynamic") or table.get("extra_config"))
