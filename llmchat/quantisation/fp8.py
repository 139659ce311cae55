"""8-bit floats with a scale for a tensor, a row, or a block of rows and inputs."""

from collections.abc import Sequence
from typing import Any

from llmchat.errors import IntegrityError
from llmchat.parse_guard import shown
from llmchat.quantisation.config import Table
from llmchat.quantisation.parts import FLOATS, HINT, blocks, sizes, wrong
from llmchat.quantisation.types import Facts, ReadSmall, StoredWeight

TYPES = {"F8_E4M3": "FP8 E4M3", "F8_E5M2": "FP8 E5M2"}
_SCALES = ("_scale_inv", "_scale")
SCALE_TYPES = (*FLOATS, "F8_E8M0")


def find(facts: Facts, table: Table, read: ReadSmall) -> dict[str, StoredWeight]:
    """The weights by name: matrices, and stacks of them."""
    stated = block_sizes(table.get("weight_block_size"))
    found = {}
    for name, fact in facts.items():
        if fact.dtype in TYPES and len(fact.shape) in (2, 3):
            found[name] = _weight(facts, name, stated)
    return found


def _weight(facts: Facts, name: str, stated: tuple[int, int] | None) -> StoredWeight:
    scale = next((name + ending for ending in _SCALES if name + ending in facts), None)
    if scale is None:
        raise IntegrityError(f"the quantised weight `{shown(name)}` has no scale", HINT)
    return scaled(facts, "floats", TYPES[facts[name].dtype], name, scale, stated)


def scaled(
    facts: Facts,
    form: str,
    kind: str,
    name: str,
    scale: str,
    stated: tuple[int, int] | None,
    **more: Any,
) -> StoredWeight:
    """A weight that is stored number by number. stated: the block that config.json names."""
    shape = facts[name].shape
    block = scale_block(facts, shape, scale, stated)
    parts = {"weight": name, "scale": scale, **more.pop("parts", {})}
    size = sum(facts[part].size for part in parts.values())
    return StoredWeight(form, kind, shape, parts, size, 8, block, **more)


def scale_block(
    facts: Facts, shape: Sequence[int], scale: str, stated: tuple[int, int] | None
) -> tuple[int, int]:
    """The rows and inputs that share a scale. Raises IntegrityError if the scales do not fit."""
    (*stack, rows, in_), fact = shape, facts[scale]
    if fact.dtype not in SCALE_TYPES:
        raise wrong(scale, fact, "numbers")
    one = (
        {(), (1,), (1, 1), (*stack,), (*stack, 1), (*stack, 1, 1)} if stack else {(), (1,), (1, 1)}
    )
    if fact.shape in one:
        return rows, in_
    if fact.shape in ((*stack, rows), (*stack, rows, 1)):
        return 1, in_
    if stated and fact.shape == (*stack, blocks(rows, stated[0]), blocks(in_, stated[1])):
        return min(stated[0], rows), min(stated[1], in_)
    expected = f"scales of {sizes(shape)} weights" + (
        f" in blocks of {sizes(stated)}" if stated else ""
    )
    raise wrong(scale, fact, expected)


def block_sizes(value: object) -> tuple[int, int] | None:
    """Rows and inputs of a block as config.json writes them; None without."""
    if value is None:
        return None
    if not isinstance(value, list) or [type(one) for one in value] != [int, int] or min(value) < 1:
        raise IntegrityError(f"config.json: `weight_block_size` is {shown(str(value))}")
    return value[0], value[1]
