"""What decoding one token has to read: the arithmetic behind the share of the memory's speed. No torch."""

from collections.abc import Mapping
from math import prod
from typing import Any

from llmchat.memory_estimate import BYTES, Shapes, kv_bytes

# Bytes of a weight by what a process keeps it as; Q8_0 has a 16-bit scale for 32 weights.
KINDS = BYTES | {"Q8_0": 34 / 32}
_EXPERTS = ("num_local_experts", "num_experts", "n_routed_experts")


def read_per_token(shapes: Shapes, config: Mapping[str, Any], kind: str, context: int) -> float:
    """Bytes of the matrices that a token goes through, each weight as `kind` keeps it, and of the keys and values of `context` tokens.

    The least that has to be read: an engine that keeps some of them wider (the head in 16 bit) reads more, and gets no credit for it. Of an
    embedding one row is read; the head is read whole, also where it is the same matrix. Of experts those that are chosen count. 0 where an
    encoder and a decoder share the work, and the shapes do not tell who reads what.
    """
    inner = config.get("text_config")
    settings = inner if isinstance(inner, dict) and not config.get("vocab_size") else config
    if settings.get("is_encoder_decoder"):
        return 0.0
    vocabulary = settings.get("vocab_size")
    ends = [shape for shape in shapes.values() if len(shape) == 2 and vocabulary in shape]
    weights = sum(
        prod(shape) * _chosen(name, settings)
        for name, shape in shapes.items()
        if len(shape) > 1
        and vocabulary not in shape
        and "position" not in name
        and "wpe" not in name
    )
    return (weights + (prod(ends[0]) if ends else 0)) * KINDS[kind] + kv_bytes(config, context)


def _chosen(name: str, settings: Mapping[str, Any]) -> float:
    """The share of a tensor that one token reads."""
    count = next((settings[key] for key in _EXPERTS if settings.get(key)), 0)
    return (
        settings.get("num_experts_per_tok", count) / count if count and ".experts" in name else 1.0
    )
