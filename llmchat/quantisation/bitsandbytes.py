"""NF4 and FP4 of bitsandbytes: codes of the flattened weight, and a maximum for each 64 of them."""

import json
from math import prod

from llmchat.errors import IntegrityError
from llmchat.parse_guard import shown
from llmchat.quantisation.config import Table
from llmchat.quantisation.parts import HINT, blocks, modules_with, parts_of, size_of, wrong
from llmchat.quantisation.types import Facts, ReadSmall, StoredWeight

_STATE = "quant_state.bitsandbytes__"
_LONGEST_STATE = 10_000
_NESTED = ("nested_absmax", "nested_quant_map")


def find(facts: Facts, table: Table, read: ReadSmall) -> dict[str, StoredWeight]:
    """The weights by name. variant: the JSON that bitsandbytes stores with a weight.

    Without `read`, shapes are flat: they are in that JSON.
    """
    return {name: _weight(facts, name, read) for name in modules_with(facts, ".absmax")}


def _weight(facts: Facts, name: str, read: ReadSmall) -> StoredWeight:
    kind = "fp4" if f"{name}.{_STATE}fp4" in facts else "nf4"
    state = f"{_STATE}{kind}"
    parts = parts_of(facts, name, ("absmax", "quant_map", state), _NESTED)
    if name not in facts or not facts[name].size:
        raise IntegrityError(f"the quantised weight `{shown(name)}` has no codes", HINT)
    parts = {"codes": name, **parts}
    is_nested = facts[parts["absmax"]].dtype == "U8"
    if is_nested and not {*_NESTED} <= parts.keys():
        raise IntegrityError(f"the quantised weight `{shown(name)}` has no `nested_absmax`", HINT)
    count, size = facts[name].size * 2, size_of(facts, list(parts.values()))
    if read is None:
        return StoredWeight("bitsandbytes", kind.upper(), (count,), parts, size, 4)
    if facts[parts[state]].size > _LONGEST_STATE:
        raise wrong(parts[state], facts[parts[state]], "a short text")
    written = read(parts[state])
    shape, block = _state(name, written)
    if not 0 <= count - prod(shape) < 2:
        raise wrong(name, facts[name], f"codes of {prod(shape)} weights")
    if prod(facts[parts["absmax"]].shape) != blocks(prod(shape), block):
        raise wrong(parts["absmax"], facts[parts["absmax"]], f"maxima of {prod(shape)} weights")
    return StoredWeight(
        "bitsandbytes",
        kind.upper(),
        shape,
        parts,
        size,
        4,
        (1, min(block, count)),
        written.decode(),
    )


def _state(name: str, written: bytes) -> tuple[tuple[int, ...], int]:
    """Shape and block size. Raises IntegrityError for another JSON."""
    try:
        state = json.loads(written)
        shape, block = tuple(state["shape"]), state["blocksize"]
        is_valid = all(type(value) is int and value > 0 for value in (*shape, block))
    except (ValueError, KeyError, TypeError, RecursionError):
        is_valid = False
    if not is_valid:
        raise IntegrityError(f"the quantisation state of `{shown(name)}` is not valid", HINT)
    return shape, block
