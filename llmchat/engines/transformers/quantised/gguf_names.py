"""Which tensor of llama.cpp belongs to a tensor of a plan, and in which form it is stored: for
reading GGUF files and for writing them.

gguf-py knows which name of llama.cpp belongs to a name of a checkpoint.
"""

import re
from collections.abc import Mapping
from math import prod
from typing import Any, NamedTuple

from torch import Tensor

from llmchat.errors import Mismatch

# Architectures whose converter makes rotary pairs adjacent, and those whose norms have the 1.
_ROTATED = ("llama", "granite", "granitemoe", "mistral3", "smollm3")
_SHIFTED = ("gemma", "gemma2", "gemma3", "nemotron")
# Those in which every head has a norm of its own.
_NORMS_OF_HEADS = ("command-r", "stablelm")
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


class Stored(NamedTuple):
    """Where a tensor of the plan is. expert: its place in a stack; heads: whose rotary rows are
    interleaved; shift: what the converter added; is_kernel: one of a convolution, whose dimension
    of 1 it left out; norms: rows of a matrix of norms, one a head.
    """

    name: str
    expert: int | None = None
    heads: int = 0
    shift: float = 0.0
    is_kernel: bool = False
    norms: int = 0

    def written_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The shape in a file, within a stack that of one expert. shape: that in the plan."""
        if self.norms:
            return self.norms, prod(shape) // self.norms
        return (shape[0], shape[-1]) if self.is_kernel else shape

    def written(self, tensor: Tensor) -> Tensor:
        """The numbers of a file in their order."""
        if self.heads:
            pairs = tensor.unflatten(0, (self.heads, 2, -1))
            return pairs.transpose(1, 2).reshape(tensor.shape)
        return tensor.float() + self.shift if self.shift else tensor


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


def stored_as(name: str, theirs: str, arch: str, config: Mapping[str, Any]) -> Stored:
    """The form in which the tensor `name` of a plan is in the tensor `theirs` of a file."""
    expert = _EXPERT.search(name)
    return Stored(
        theirs,
        int(expert[1]) if expert and "_exps." in theirs else None,
        _heads(theirs, config) if arch in _ROTATED else 0,
        1.0 if arch in _SHIFTED and theirs.endswith("norm.weight") else 0.0,
        name.endswith(".conv.weight"),
        _norms(theirs, config) if arch in _NORMS_OF_HEADS else 0,
    )


def queries_of_a_key(config: Mapping[str, Any]) -> int:
    """How many heads of queries share a head of keys."""
    queries, keys = _counts(config)
    return queries // keys


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
