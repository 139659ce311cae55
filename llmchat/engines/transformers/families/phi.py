"""Phi-1, 1.5 and 2: parallel blocks, and a rotary embedding of a part of each head."""

from typing import Any

from llmchat.engines.transformers.families.blocks import Linear, Norm, Rotary
from llmchat.engines.transformers.families.config_values import Config, flag, size, with_defaults
from llmchat.engines.transformers.families.layers import layer_norm, parallel, plain_mlp
from llmchat.engines.transformers.families.parts import attention, head_sizes, model
from llmchat.engines.transformers.families.plan import Layer, Plan, Step
from llmchat.engines.transformers.families.rope import rotary

_DEFAULTS = {
    "hidden_act": "gelu_new",
    "max_position_embeddings": 2048,
    "partial_rotary_factor": 0.5,
}


def plan(config: Config) -> Plan:
    config = with_defaults(config, _DEFAULTS)
    rope = rotary(config, head_sizes(config)[2])
    return model(
        config,
        [_layer(config, index, rope) for index in range(size(config, "num_hidden_layers"))],
        layer_norm(config, "model.final_layernorm"),
    )


def _layer(config: Config, index: int, rope: Rotary) -> Layer:
    prefix = f"model.layers.{index}."
    hidden, (count, _, dim) = size(config, "hidden_size"), head_sizes(config)
    options: dict[str, Any] = {"output": Linear(f"{prefix}self_attn.dense", hidden, count * dim)}
    if flag(config, "qk_layernorm"):
        options |= _head_norms(config, f"{prefix}self_attn.")
    heads = attention(config, f"{prefix}self_attn.", rotary=rope, **options)
    inner = size(config, "intermediate_size")
    mlp = plain_mlp(config, f"{prefix}mlp.fc1", f"{prefix}mlp.fc2", inner)
    norm = layer_norm(config, f"{prefix}input_layernorm")
    return parallel(Step(heads, norm), Step(mlp, norm))


def _head_norms(config: Config, prefix: str) -> dict[str, Norm]:
    heads, kv_heads, dim = head_sizes(config)
    return {
        "query_norm": layer_norm(config, f"{prefix}q_layernorm", heads * dim, group=dim),
        "key_norm": layer_norm(config, f"{prefix}k_layernorm", kv_heads * dim, group=dim),
    }
