"""The mixes of kinds that GGUF files have: `Q4_K_M` names one kind for most matrices and wider ones
for those whose errors cost most.

The recipes are those of llama.cpp's quantize tool without an importance matrix (llama-quant.cpp,
llama_tensor_get_type_impl, August 2026).
"""

import re
from collections.abc import Callable, Mapping
from typing import NamedTuple

from llmchat.gguf_file.types import OF_32, type_named

# Whether a matrix of a role is meant: its place among those of the role, and how many there are.
Where = Callable[[int, int], bool]


def _all(index: int, count: int) -> bool:
    return True


def _more(index: int, count: int) -> bool:
    """llama.cpp's use_more_bits: the first and the last eighth, and every third between."""
    eighth = count // 8
    return index < eighth or index >= 7 * count // 8 or (index - eighth) % 3 == 2


def _first(number: int) -> Where:
    return lambda index, count: index < number


def _part(divisor: int) -> Where:
    return lambda index, count: index < count // divisor


class Mix(NamedTuple):
    """kind: of most matrices. head: of the output head, or of an embedding that is one. embedding:
    of any other ("": `kind`). values, down, output: of attention's values, of the last projection
    of an MLP, and of attention's output; the first rule that applies. grouped_values: of values if
    at least four queries share a key. has_wide_attention: with 8 experts, attention gets more bits.
    experts: of the matrices of experts ("": by their roles).
    """

    kind: str
    head: str = "Q6_K"
    embedding: str = ""
    values: tuple[tuple[str, Where], ...] = ()
    down: tuple[tuple[str, Where], ...] = ()
    output: str = ""
    grouped_values: str = ""
    has_wide_attention: bool = False
    experts: str = ""


_PLAIN = {kind: Mix(kind, head=kind) for kind in ("F32", "F16", "BF16", "Q8_0")}
# In the older kinds the embedding and the head have 8 bits: an error in them reaches every token.
_OLD = {kind: Mix(kind, "Q8_0", "Q8_0") for kind in ("Q5_1", "Q5_0", "Q4_1", "Q4_0")}
_IQ4_VALUES, _IQ4_DOWN = "Q5_K", (("Q5_K", _part(8)),)
# By the name of the mix, the largest first within each group.
MIXES = _PLAIN | _OLD | {
    "Q6_K": Mix("Q6_K"),
    "Q5_K_M": Mix("Q5_K", values=(("Q6_K", _more),), down=(("Q6_K", _more),)),
    "Q5_K_S": Mix("Q5_K"),
    "Q4_K_M": Mix(
        "Q4_K", values=(("Q6_K", _more),), down=(("Q6_K", _more),), has_wide_attention=True
    ),
    "Q4_K_S": Mix(
        "Q4_K", values=(("Q5_K", _first(4)),), down=(("Q5_K", _part(8)),), has_wide_attention=True
    ),
    "Q3_K_L": Mix("Q3_K", values=(("Q5_K", _all),), down=(("Q5_K", _all),), output="Q5_K"),
    "Q3_K_M": Mix(
        "Q3_K", values=(("Q5_K", _first(2)), ("Q4_K", _all)),
        down=(("Q5_K", _part(16)), ("Q4_K", _all)), output="Q4_K", has_wide_attention=True,
    ),
    "Q3_K_S": Mix("Q3_K", has_wide_attention=True),
    "Q2_K": Mix(
        "Q2_K", values=(("Q3_K", _all),), down=(("Q3_K", _all),), output="Q3_K",
        grouped_values="Q4_K", has_wide_attention=True,
    ),
    "IQ4_NL": Mix(
        "IQ4_NL", down=_IQ4_DOWN, grouped_values=_IQ4_VALUES, has_wide_attention=True
    ),
    "IQ4_XS": Mix(
        "IQ4_XS", down=_IQ4_DOWN, grouped_values=_IQ4_VALUES, has_wide_attention=True
    ),
    "MXFP4_MOE": Mix("Q8_0", head="Q8_0", experts="MXFP4"),
}  # fmt: skip

_VALUES = re.compile(r"attn_(?:v|qkv|kv_b)\.weight$")
_LAYER = re.compile(r"blk\.(\d+)\.")
_MANY_SHARE, _EIGHT = 4, 8
_LARGE = 80


class Facts(NamedTuple):
    """What a mix depends on: layers; experts of a layer, 0 without; queries that share a key; the
    architecture by llama.cpp's name.
    """

    layers: int
    experts: int
    shared: int
    architecture: str

    @property
    def is_large(self) -> bool:
        """llama.cpp's LLM_TYPE_70B."""
        is_known = self.architecture == "qwen2" or (
            self.architecture == "llama" and self.shared > 1
        )
        return self.layers == _LARGE and is_known


def kinds_in_mix(
    shapes: Mapping[str, tuple[int, ...]], wanted: str, facts: Facts
) -> dict[str, str]:
    """The kind of each matrix of a file of the mix `wanted`. shapes: those that are quantised, by
    llama.cpp's names.
    """
    mix, found = MIXES[wanted], {}
    names = sorted(shapes, key=lambda name: (_layer(name), name))
    values = [name for name in names if _VALUES.search(name)]
    downs = [name for name in names if "ffn_down" in name]
    for name in names:
        if name in values:
            kind = _of_values(mix, values.index(name), len(values), facts)
        elif name in downs:
            place = _layer(name) if facts.experts > 1 else downs.index(name)
            kind = _ruled(mix.down, place, facts.layers) or mix.kind
        else:
            kind = _of_others(mix, name, "output.weight" in shapes, facts)
        if mix.experts and "_exps." in name:
            kind = mix.experts
        found[name] = fitting(kind, shapes[name][-1])
    return found


def fitting(kind: str, width: int) -> str:
    """The kind, or what takes its place in rows of so many numbers."""
    if width % type_named(kind).block:
        kind = OF_32.get(kind, "F16")
    return "F16" if width % type_named(kind).block else kind


def _layer(name: str) -> int:
    found = _LAYER.match(name)
    return int(found[1]) if found else -1


def _of_values(mix: Mix, index: int, count: int, facts: Facts) -> str:
    kind = _ruled(mix.values, index, count) or mix.kind
    if mix.grouped_values and facts.shared >= _MANY_SHARE:
        kind = mix.grouped_values
    if facts.is_large and kind in ("Q3_K", "Q4_K"):
        kind = "Q5_K"
    return "Q8_0" if facts.experts == _EIGHT and _is_mixed(mix) else kind


def _of_others(mix: Mix, name: str, has_head: bool, facts: Facts) -> str:
    if name == "output.weight" or (name == "token_embd.weight" and not has_head):
        return mix.head
    if name == "token_embd.weight":
        return mix.embedding or mix.kind
    if facts.experts == _EIGHT and _is_mixed(mix) and name.endswith("attn_k.weight"):
        return "Q8_0"
    if name.endswith("attn_output.weight"):
        if facts.experts == _EIGHT:
            return "Q5_K" if mix.has_wide_attention else mix.kind
        return mix.output or mix.kind
    return mix.kind


def _is_mixed(mix: Mix) -> bool:
    """Whether it has the rules of llama.cpp: not 16 bits, nor the older kinds."""
    return mix.head == "Q6_K"


def _ruled(rules: tuple[tuple[str, Where], ...], index: int, count: int) -> str:
    return next((kind for kind, applies in rules if applies(index, count)), "")
