"""Cohere's Command R (cohere) and Command R7B and A (cohere2): parallel blocks,
LayerNorms without biases, and an interleaved rotary embedding.

Command R7B and A rotate only in layers with a window.
"""

from dataclasses import replace
from typing import Any

from llmchat.engines.transformers.families.blocks import Norm, Rotary
from llmchat.engines.transformers.families.config_values import (
    Config,
    flag,
    number,
    size,
    with_defaults,
)
from llmchat.engines.transformers.families.layers import (
    every_nth_full,
    kinds_of_layers,
    layer_norm,
    parallel,
    windows_of,
)
from llmchat.engines.transformers.families.parts import attention, gated_mlp, head_sizes, model
from llmchat.engines.transformers.families.plan import Layer, Plan, Step
from llmchat.engines.transformers.families.rope import rotary

_DEFAULTS: dict[str, Config] = {
    "cohere": {
        "logit_scale": 0.0625,
        "max_position_embeddings": 8192,
        "rope_theta": 500000.0,
        "tie_word_embeddings": True,
    },
    "cohere2": {
        "logit_scale": 0.0625,
        "max_position_embeddings": 8192,
        "sliding_window": 4096,
        "sliding_window_pattern": 4,
        "tie_word_embeddings": True,
    },
}


def plan(config: Config) -> Plan:
    config = with_defaults(config, _DEFAULTS[config["model_type"]])
    layers = size(config, "num_hidden_layers")
    rope, windows = rotary(config, head_sizes(config)[2], interleaved=True), [0] * layers
    ropes: list[Rotary | None] = [rope] * layers
    if config["model_type"] == "cohere2":
        nth = size(config, "sliding_window_pattern")
        windows = windows_of(config, kinds_of_layers(config, layers, every_nth_full(layers, nth)))
        ropes = [rope if window else None for window in windows]
    made = model(
        config,
        [_layer(config, index, ropes[index], windows[index]) for index in range(layers)],
        _norm(config, "model.norm"),
    )
    return replace(made, head=replace(made.head, scale=number(config, "logit_scale", 1.0)))


def _layer(config: Config, index: int, rope: Rotary | None, window: int) -> Layer:
    prefix = f"model.layers.{index}."
    options: dict[str, Any] = {"rotary": rope, "window": window}
    if flag(config, "use_qk_norm"):
        options |= _head_norms(config, f"{prefix}self_attn.")
    heads = attention(config, f"{prefix}self_attn.", **options)
    norm = _norm(config, f"{prefix}input_layernorm")
    return parallel(Step(heads, norm), Step(gated_mlp(config, f"{prefix}mlp."), norm))


def _head_norms(config: Config, prefix: str) -> dict[str, Norm]:
    """Each head has weights of its own."""
    heads, kv_heads, dim = head_sizes(config)
    return {
        "query_norm": _norm(config, f"{prefix}q_norm", heads * dim, group=dim),
        "key_norm": _norm(config, f"{prefix}k_norm", kv_heads * dim, group=dim),
    }


def _norm(config: Config, module: str, width: int | None = None, group: int = 0) -> Norm:
    return layer_norm(config, module, width, has_bias=False, group=group)
