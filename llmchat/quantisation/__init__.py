"""Which weights a safetensors checkpoint keeps in few bits, and how: from config.json and headers.

No tensor is read, but for a few numbers of some formats. engines/transformers/quantised reads them.
"""

from collections.abc import Callable
from typing import Any

from llmchat.parse_guard import reading
from llmchat.quantisation import (
    awq,
    bitsandbytes,
    chatglm,
    compressed_tensors,
    fp8,
    gptq,
    mxfp4,
)
from llmchat.quantisation.config import Table, declared, method_of, refuse_tensors
from llmchat.quantisation.types import Fact, Facts, ReadSmall, Shapes, StoredWeight

__all__ = [
    "Fact", "Facts", "ReadSmall", "Shapes", "StoredWeight", "declared", "is_int8", "logical_shapes",
    "method_of", "stored_weights",
]  # fmt: skip

_Find = Callable[[Facts, Table, ReadSmall], dict[str, StoredWeight]]
_FIND: dict[str, _Find] = {
    "gptq": gptq.find,
    "awq": awq.find,
    "compressed-tensors": compressed_tensors.find,
    "fp8": fp8.find,
    "fbgemm_fp8": fp8.find,
    "modelopt": fp8.find,
    "mxfp4": mxfp4.find,
    "bitsandbytes": bitsandbytes.find,
    "chatglm": chatglm.find,
}
# Tensors of quantised activations and caches, which no model of ours has.
_ENDINGS = (
    ".input_scale", ".output_scale", ".activation_scale", ".input_zero_point",
    ".output_zero_point", ".input_global_scale", ".input_scale_ub", ".k_scale", ".v_scale",
    ".q_scale", ".prob_scale", ".k_zero_point", ".v_zero_point", ".weight_g_idx", ".weight_shape",
    ".weight_zero_point", "_activation_scale", ".wf_unsqueeze_zero", ".wf_unsqueeze_neg_one",
)  # fmt: skip


def is_int8(config: Table) -> bool:
    """Whether a config.json declares 8-bit weights of bitsandbytes, which have their own reader."""
    return bool((declared(config) or {}).get("load_in_8bit"))


def stored_weights(
    config: dict[str, Any], facts: Facts, read: ReadSmall = None
) -> dict[str, StoredWeight]:
    """The weights in few bits by name; {} for a checkpoint in 16 bits, or int8 of bitsandbytes.

    read: the bytes of a small tensor. Raises Mismatch for a kind that llmchat does not run, and
    IntegrityError where tensors are missing or do not fit.
    """
    with reading("the quantised weights"):
        table = declared(config)
        if table is None:
            refuse_tensors(facts)
            return {}
        method = method_of(table)
        return {} if table.get("load_in_8bit") else _FIND[method](facts, table, read)


def logical_shapes(facts: Facts, stored: dict[str, StoredWeight]) -> Shapes:
    """The shapes of the model's tensors: of quantised weights, not of what they are made of."""
    parts = {part for weight in stored.values() for part in weight.parts.values()}
    plain = {
        name: fact.shape
        for name, fact in facts.items()
        if name not in parts and not (stored and name.endswith(_ENDINGS))
    }
    return plain | {name: weight.shape for name, weight in stored.items()}
