"""GLM-4: an interleaved rotary embedding of half of each head; fused gate and up matrices.

glm: the files of 2024 (GLM-4-9B, GLM-Edge); glm4: those of 2025 (GLM-4-0414), which also norm
the output of a block.
"""

from llmchat.engines.transformers.families.blocks import Rotary
from llmchat.engines.transformers.families.config_values import Config, size, with_defaults
from llmchat.engines.transformers.families.layers import pre_norm_layer
from llmchat.engines.transformers.families.parts import (
    attention,
    head_sizes,
    joined_gated_mlp,
    model,
    rms,
    sequential,
)
from llmchat.engines.transformers.families.plan import Layer, Plan, Step
from llmchat.engines.transformers.families.rope import rotary

_DEFAULTS = {
    "head_dim": 128,
    "max_position_embeddings": 131072,
    "num_key_value_heads": 2,
    "partial_rotary_factor": 0.5,
    "rms_norm_eps": 1.5625e-07,
}


def plan(config: Config) -> Plan:
    config = with_defaults(config, _DEFAULTS)
    rope = rotary(config, head_sizes(config)[2], interleaved=True)
    return model(
        config,
        [_layer(config, index, rope) for index in range(size(config, "num_hidden_layers"))],
        rms(config, "model.norm.weight"),
    )


def _layer(config: Config, index: int, rope: Rotary) -> Layer:
    prefix = f"model.layers.{index}."
    heads = attention(config, f"{prefix}self_attn.", rotary=rope)
    mlp = joined_gated_mlp(config, f"{prefix}mlp.gate_up_proj", f"{prefix}mlp.down_proj")
    if config["model_type"] == "glm":
        return pre_norm_layer(config, prefix, heads, mlp)
    before, behind, between, last = (
        rms(config, f"{prefix}{name}_layernorm.weight")
        for name in ("input", "post_self_attn", "post_attention", "post_mlp")
    )
    return sequential(Step(heads, before, behind), Step(mlp, between, last))
