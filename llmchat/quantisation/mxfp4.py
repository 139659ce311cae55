"""MXFP4 of gpt-oss: stacks of experts, 4-bit floats in groups of 32 with a power of two as scale.

An expert's matrices get names of their own, those of plans: rows of gate and up alternate.
"""

from collections.abc import Iterator

from llmchat.quantisation.config import Table
from llmchat.quantisation.parts import modules_with, wrong
from llmchat.quantisation.types import Facts, ReadSmall, StoredWeight

GROUP = 32
_MOST_EXPERTS = 4096
_STACKS = {
    "gate_up_proj": (("gate_proj", 0, 2), ("up_proj", 1, 2)),
    "down_proj": (("down_proj", 0, 1),),
}


def find(facts: Facts, table: Table, read: ReadSmall) -> dict[str, StoredWeight]:
    """The weights of experts by name, one by one."""
    found: dict[str, StoredWeight] = {}
    for stack in modules_with(facts, "_blocks"):
        found.update(_experts(facts, stack))
    return found


def _experts(facts: Facts, stack: str) -> Iterator[tuple[str, StoredWeight]]:
    parts = {"blocks": f"{stack}_blocks", "scales": f"{stack}_scales"}
    fact = facts[parts["blocks"]]
    scales = facts.get(parts["scales"])
    if fact.dtype != "U8" or len(fact.shape) != 4 or fact.shape[3] * 2 != GROUP or not fact.size:
        raise wrong(parts["blocks"], fact, "experts x rows x groups x 16 bytes")
    count, rows, groups, _ = fact.shape
    if count > _MOST_EXPERTS:
        raise wrong(parts["blocks"], fact, f"at most {_MOST_EXPERTS:,} experts")
    if scales is None or scales.dtype not in ("U8", "F8_E8M0") or scales.shape != fact.shape[:3]:
        raise wrong(parts["blocks"], fact, "the codes of its scales")
    prefix, _, name = stack.rpartition(".")
    if name not in _STACKS:
        raise wrong(parts["blocks"], fact, "`gate_up_proj` or `down_proj`")
    for index in range(count):
        for projection, start, step in _STACKS[name]:
            shape = (len(range(start, rows, step)), groups * GROUP)
            size = (fact.size + scales.size) // count * shape[0] // rows
            yield (
                f"{prefix}.{index}.{projection}.weight",
                StoredWeight(
                    "mxfp4",
                    "MXFP4",
                    shape,
                    parts,
                    size,
                    4,
                    (1, GROUP),
                    index=index,
                    rows=(start, step),
                ),
            )
