"""ChatGLM's own 4-bit and 8-bit files: `weight` int8 [out, in * bits / 8] and `weight_scale` [out],
which config.json declares as `quantization_bit`.
"""

from llmchat.quantisation.config import Table
from llmchat.quantisation.parts import FLOATS, matrix, modules_with, parts_of, require, size_of
from llmchat.quantisation.types import Facts, ReadSmall, StoredWeight

_SCALE = ".weight_scale"


def find(facts: Facts, table: Table, read: ReadSmall) -> dict[str, StoredWeight]:
    """The weights by name."""
    bits = int(table["bits"])
    modules = modules_with(facts, _SCALE)
    return {f"{module}.weight": _weight(facts, module, bits) for module in modules}


def _weight(facts: Facts, module: str, bits: int) -> StoredWeight:
    parts = parts_of(facts, module, ("weight", "weight_scale"))
    out, stored = matrix(facts, parts["weight"], ("I8",))
    require(facts, parts["weight_scale"], (out,))
    if facts[parts["weight_scale"]].dtype not in FLOATS:
        matrix(facts, parts["weight_scale"], FLOATS)
    in_ = stored * 8 // bits
    size = size_of(facts, list(parts.values()))
    return StoredWeight("chatglm", f"ChatGLM INT{bits}", (out, in_), parts, size, bits, (1, in_))
