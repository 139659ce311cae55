"""Phi-3 and Phi-4: fused QKV matrices, fused gate and up matrices, LongRoPE."""

from llmchat.engines.transformers.families.blocks import Rotary
from llmchat.engines.transformers.families.config_values import Config, count, size, with_defaults
from llmchat.engines.transformers.families.layers import joined_attention, pre_norm_layer
from llmchat.engines.transformers.families.parts import (
    head_sizes,
    joined_gated_mlp,
    model,
    rms,
    separate_heads,
)
from llmchat.engines.transformers.families.plan import Layer, Plan
from llmchat.engines.transformers.families.rope import rotary, scaling_of

_DEFAULTS = {
    "max_position_embeddings": 4096,
    "original_max_position_embeddings": 4096,
    "rms_norm_eps": 1e-5,
}


def plan(config: Config) -> Plan:
    config = with_defaults(config, _DEFAULTS)
    scaling = scaling_of(config)
    if scaling["rope_type"] in ("su", "yarn"):
        # The first files' names of it.
        scaling["rope_type"] = "longrope"
    rope = rotary(config, head_sizes(config)[2], scaling)
    return model(
        config,
        [_layer(config, index, rope) for index in range(size(config, "num_hidden_layers"))],
        rms(config, "model.norm.weight"),
    )


def _layer(config: Config, index: int, rope: Rotary) -> Layer:
    prefix = f"model.layers.{index}."
    heads = joined_attention(
        config,
        f"{prefix}self_attn.qkv_proj",
        f"{prefix}self_attn.o_proj",
        separate_heads(*head_sizes(config)),
        rotary=rope,
        window=count(config, "sliding_window"),
    )
    mlp = joined_gated_mlp(config, f"{prefix}mlp.gate_up_proj", f"{prefix}mlp.down_proj")
    return pre_norm_layer(config, prefix, heads, mlp)
