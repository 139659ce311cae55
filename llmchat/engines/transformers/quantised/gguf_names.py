"""Which tensors of llama.cpp belong to a tensor of a plan, and in which form they are: for reading
GGUF files and for writing them.

gguf-py knows which name of llama.cpp belongs to a name of a checkpoint.
"""

import re
from collections.abc import Mapping
from typing import Any

from llmchat.engines.transformers.quantised.gguf_forms import PLACES
from llmchat.engines.transformers.quantised.gguf_places import (
    KERNEL,
    SHIFTED,
    Change,
    Piece,
    Stored,
    interleaved,
    shaped,
)
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
_LAYER = re.compile(r"\.(\d+)\.")


def name_table(arch: str, layers: int) -> Any:
    """gguf-py's table of an architecture. Raises Mismatch for one that it does not know."""
    import gguf

    numbers = {name: number for number, name in gguf.MODEL_ARCH_NAMES.items()}
    if arch not in numbers:
        raise Mismatch(f"the installed gguf package does not know the architecture `{arch}`")
    return gguf.get_tensor_name_map(numbers[arch], layers)


def stored_name(name: str, table: Any) -> str:
    """llama.cpp's name of a tensor; "" where it has none."""
    module, _, suffix = name.rpartition(".")
    found = table.get_name(module) or table.get_name(_EXPERT.sub(".experts.", module))
    if found and suffix in ("weight", "bias"):
        return f"{found}.{suffix}"
    layer = _LAYER.search(name)
    for pattern, theirs in _ALIASES:
        if layer and pattern.search(name):
            return f"blk.{layer[1]}.{theirs}"
    return ""


def places_of(name: str, arch: str, table: Any, config: Mapping[str, Any]) -> list[Stored]:
    """The places in which a tensor of a plan can be, the usual one first; none for one that files
    of the architecture do not have. table: of `name_table`.
    """
    for pattern, make in PLACES.get(arch, ()):
        if match := pattern.search(name):
            return make(match, config)
    theirs = stored_name(name, table)
    return [_usual(name, theirs, arch, config)] if theirs else []


def _usual(name: str, theirs: str, arch: str, config: Mapping[str, Any]) -> Stored:
    expert, known = _EXPERT.search(name), ARCHITECTURES[arch]
    index = int(expert[1]) if expert and "_exps." in theirs else None
    changes: list[Change] = []
    if known.is_rotated and (heads := _heads(theirs, config)):
        changes.append(interleaved(heads))
    if known.is_shifted and theirs.endswith("norm.weight"):
        changes.append(SHIFTED)
    if name.endswith(".conv.weight"):
        changes.append(KERNEL)
    if known.has_norms_of_heads and (norms := _norms(theirs, config)):
        changes.append(shaped((-1,), (norms, -1)))
    return Stored((Piece(theirs, index),), tuple(changes))


def _heads(theirs: str, config: Mapping[str, Any]) -> int:
    queries, keys = _counts(config)
    return queries if ".attn_q." in theirs else keys if ".attn_k." in theirs else 0


def _norms(theirs: str, config: Mapping[str, Any]) -> int:
    queries, keys = _counts(config)
    return queries if ".attn_q_norm." in theirs else keys if ".attn_k_norm." in theirs else 0


def _counts(config: Mapping[str, Any]) -> tuple[int, int]:
    """Heads of queries and of keys."""
    heads = int(config["num_attention_heads"])
    return heads, int(config.get("num_key_value_heads") or heads)
