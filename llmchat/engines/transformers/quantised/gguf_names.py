"""Which tensors of llama.cpp belong to a tensor of a plan, and in which form they are: for reading
GGUF files and for writing them.

gguf-py knows which name of llama.cpp belongs to a name of a checkpoint.
"""

import re
from collections.abc import Mapping
from typing import Any

from llmchat.engines.transformers.families.plan import Plan
from llmchat.engines.transformers.quantised.gguf_forms import special_places
from llmchat.engines.transformers.quantised.gguf_places import (
    KERNEL,
    SHIFTED,
    Change,
    Piece,
    Stored,
    shaped,
)
from llmchat.engines.transformers.quantised.gguf_rows import HeadRows, head_rows
from llmchat.errors import Mismatch
from llmchat.gguf_file.architectures import ARCHITECTURES

_EXPERT = re.compile(r"\.experts\.(\d+)\.")
# Names that gguf-py does not know: a pattern of ours, and llama.cpp's name within the layer.
_ALIASES = (
    (re.compile(r"\.e_score_correction_bias$|\.feed_forward\.expert_bias$"), "exp_probs_b.bias"),
    (re.compile(r"\.self_attn\.sinks$"), "attn_sinks.weight"),
    (re.compile(r"\.experts\.\d+\.(?:gate_proj|w1)\.weight$"), "ffn_gate_exps.weight"),
    (re.compile(r"\.experts\.\d+\.(?:up_proj|w3)\.weight$"), "ffn_up_exps.weight"),
    (re.compile(r"\.experts\.\d+\.(?:down_proj|w2)\.weight$"), "ffn_down_exps.weight"),
)
_GATE_OR_UP = re.compile(r"(blk\.\d+\.)ffn_(gate|up)_exps\.weight")
_LAYER = re.compile(r"\.(\d+)\.")


class Places:
    """Where files of an architecture have the tensors of a plan.

    config: that of the plan. Raises Mismatch for an architecture that gguf-py does not know.
    """

    def __init__(self, plan: Plan, arch: str, config: Mapping[str, Any]):
        self._arch, self._config = arch, config
        self._table = _name_table(arch, len(plan.all_layers))
        self._rows = head_rows(plan, is_rotated=ARCHITECTURES[arch].is_rotated)

    def of(self, name: str) -> list[Stored]:
        """The places in which a tensor can be, the usual one first; none for one that these files
        do not have.
        """
        if found := special_places(name, self._arch, self._config):
            return found
        theirs = _stored_name(name, self._table)
        if not theirs:
            return _joined(name, self._rows)
        usual = _usual(name, theirs, self._arch, self._config, self._rows)
        return [usual, *_in_joined_experts(usual, self._config), *_joined(name, self._rows)]


def _name_table(arch: str, layers: int) -> Any:
    """gguf-py's table of an architecture."""
    import gguf

    numbers = {name: number for number, name in gguf.MODEL_ARCH_NAMES.items()}
    if arch not in numbers:
        raise Mismatch(f"the installed gguf package does not know the architecture `{arch}`")
    return gguf.get_tensor_name_map(numbers[arch], layers)


def _stored_name(name: str, table: Any) -> str:
    """llama.cpp's name of a tensor; "" where it has none."""
    module, _, suffix = name.rpartition(".")
    forms = module, _EXPERT.sub(".experts.", module), module.removeprefix("transformer.")
    found = next(filter(None, map(table.get_name, forms)), None)
    if found and suffix in ("weight", "bias"):
        return f"{found}.{suffix}"
    layer = _LAYER.search(name)
    for pattern, theirs in _ALIASES:
        if layer and pattern.search(name):
            return f"blk.{layer[1]}.{theirs}"
    return ""


def _in_joined_experts(stored: Stored, config: Mapping[str, Any]) -> list[Stored]:
    """Gate and up of an expert can be one matrix, one behind the other."""
    (piece,) = stored.pieces
    match = _GATE_OR_UP.fullmatch(piece.name)
    inner = config.get("moe_intermediate_size") or config.get("intermediate_size")
    if match is None or piece.index is None or type(inner) is not int:
        return []
    first = inner * (match[2] == "up")
    return [Stored((Piece(f"{match[1]}ffn_gate_up_exps.weight", piece.index, first, inner),))]


def _joined(name: str, rows: HeadRows) -> list[Stored]:
    """The rows of a matrix with the queries, keys and values of a layer."""
    module, _, suffix = name.rpartition(".")
    if module not in rows.parts:
        return []
    first, count = rows.parts[module]
    piece = Piece(f"blk.{layer_of(name)}.attn_qkv.{suffix}", None, first, count)
    return [Stored((piece,), _moved(module, rows))]


def _moved(module: str, rows: HeadRows) -> tuple[Change, ...]:
    return (rows.changes[module],) if module in rows.changes else ()


def layer_of(name: str) -> int:
    """The layer of a tensor of a plan."""
    layer = _LAYER.search(name)
    return int(layer[1]) if layer else 0


def _usual(name: str, theirs: str, arch: str, config: Mapping[str, Any], rows: HeadRows) -> Stored:
    expert, known = _EXPERT.search(name), ARCHITECTURES[arch]
    index = int(expert[1]) if expert and "_exps." in theirs else None
    changes = [*_moved(name.rpartition(".")[0], rows)]
    if known.is_shifted and theirs.endswith("norm.weight"):
        changes.append(SHIFTED)
    if name.endswith(".conv.weight"):
        changes.append(KERNEL)
    if known.has_norms_of_heads and (norms := _norms(theirs, config)):
        changes.append(shaped((-1,), (norms, -1)))
    return Stored((Piece(theirs, index),), tuple(changes))


def _norms(theirs: str, config: Mapping[str, Any]) -> int:
    heads = int(config["num_attention_heads"])
    keys = int(config.get("num_key_value_heads") or heads)
    return heads if ".attn_q_norm." in theirs else keys if ".attn_k_norm." in theirs else 0
