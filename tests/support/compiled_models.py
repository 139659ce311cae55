"""Small random models for the compiled step."""

from typing import Any

import torch
from torch import Tensor

from llmchat.engines.transformers.pytorch.int8 import quantise_rows
from llmchat.engines.transformers.weights import MemoryTensors


def make_config(**changes: Any) -> dict[str, Any]:
    base = {
        "model_type": "llama", "vocab_size": 320, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4,
        "num_key_value_heads": 2, "rms_norm_eps": 1e-5, "tie_word_embeddings": False,
    }  # fmt: skip
    return base | changes


def linear_shapes(config: dict[str, Any]) -> dict[str, tuple[int, int]]:
    hidden, inner = config["hidden_size"], config["intermediate_size"]
    dim = config.get("head_dim") or hidden // config["num_attention_heads"]
    queries, keys = config["num_attention_heads"] * dim, config["num_key_value_heads"] * dim
    shapes = (
        (queries, hidden),
        (keys, hidden),
        (keys, hidden),
        (hidden, queries),
        (inner, hidden),
        (inner, hidden),
        (hidden, inner),
    )
    names = [f"{part}.{name}" for part, linears in MODULES.items() for name in linears]
    return {
        f"model.layers.{layer}.{name}": shape
        for layer in range(config["num_hidden_layers"])
        for name, shape in zip(names, shapes, strict=True)
    }


def make_tensors(config: dict[str, Any], seed: int = 0) -> MemoryTensors:
    """Random weights that 8 bits hold exactly, so that what differs is the arithmetic."""
    torch.manual_seed(seed)
    hidden, vocabulary = config["hidden_size"], config["vocab_size"]
    state = {
        "model.norm.weight": 1 + 0.1 * torch.randn(hidden),
        "model.embed_tokens.weight": rounded(torch.randn(vocabulary, hidden)),
    }
    state["model.embed_tokens.weight"] = state["model.embed_tokens.weight"].bfloat16().float()
    if not config["tie_word_embeddings"]:
        state["lm_head.weight"] = rounded(torch.randn(vocabulary, hidden) / hidden**0.5)
    for name, (out, in_) in linear_shapes(config).items():
        state[f"{name}.weight"] = rounded(torch.randn(out, in_) / in_**0.5)
        if config["model_type"] == "qwen2" and name.endswith(("q_proj", "k_proj", "v_proj")):
            state[f"{name}.bias"] = 0.3 * torch.randn(out)
    for layer in range(config["num_hidden_layers"]):
        for norm in ("input", "post_attention"):
            state[f"model.layers.{layer}.{norm}_layernorm.weight"] = 1 + 0.1 * torch.randn(hidden)
    return MemoryTensors(state)


MODULES = {
    "self_attn": ("q_proj", "k_proj", "v_proj", "o_proj"),
    "mlp": ("gate_proj", "up_proj", "down_proj"),
}


def rounded(weight: Tensor) -> Tensor:
    whole, scb = quantise_rows(weight)
    return whole * (scb / 127)[:, None]
