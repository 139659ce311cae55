"""Compute how many bytes decoding one token must read. Does not import torch."""

from collections.abc import Mapping
from math import prod
from typing import Any

from llmchat.memory_estimate import BYTES, Shapes, kv_bytes

# Bytes of a weight by the format it is kept in; Q8_0 has a 16-bit scale for 32 weights.
KINDS = BYTES | {"Q8_0": 34 / 32}
_EXPERTS = ("num_local_experts", "num_experts", "n_routed_experts")


def read_per_token(shapes: Shapes, config: Mapping[str, Any], kind: str, context: int) -> float:
    """Bytes of the weights a token uses, kept as `kind`, and of the KV cache of `context` tokens.

    A lower bound: an engine that keeps some matrices wider, such as a 16-bit head, reads more and
    gets no credit for it. Counts one row of the embedding, all of the head (also if it is the same
    matrix), and the experts that are chosen. 0 for an encoder-decoder, where the shapes do not
    show which part reads what.
    """
    inner = config.get("text_config")
    settings = inner if isinstance(inner, dict) and not config.get("vocab_size") else config
    if settings.get("is_encoder_decoder"):
        return 0.0
    vocabulary = settings.get("vocab_size")
    ends = [shape for shape in shapes.values() if len(shape) == 2 and vocabulary in shape]
    inner_weights = sum(
        prod(shape) * _chosen(name, settings)
        for name, shape in shapes.items()
        if len(shape) > 1 and vocabulary not in shape and not _is_position(name)
    )
    head = prod(ends[0]) if ends else 0
    return (inner_weights + head) * KINDS[kind] + kv_bytes(config, context)


def _is_position(name: str) -> bool:
    return "position" in name or "wpe" in name


def _chosen(name: str, settings: Mapping[str, Any]) -> float:
    """The fraction of a tensor that one token reads."""
    count = next((settings[key] for key in _EXPERTS if settings.get(key)), 0)
    if not count or ".experts" not in name:
        return 1.0
    return float(settings.get("num_experts_per_tok", count) / count)
