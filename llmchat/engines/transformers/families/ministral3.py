"""Ministral 3: Mistral with YaRN and queries that are scaled by their positions."""

from llmchat.engines.transformers.families.blocks import PositionScale, Rotary
from llmchat.engines.transformers.families.config_values import (
    Config,
    count,
    number,
    size,
    with_defaults,
)
from llmchat.engines.transformers.families.layers import pre_norm_layer
from llmchat.engines.transformers.families.parts import (
    attention,
    gated_mlp,
    head_sizes,
    model,
    rms,
)
from llmchat.engines.transformers.families.plan import Layer, Plan
from llmchat.engines.transformers.families.rope import Scaling, rotary, scaling_of

_DEFAULTS = {
    "head_dim": 128,
    "max_position_embeddings": 262144,
    "num_key_value_heads": 8,
    "rms_norm_eps": 1e-5,
}
_ROPE = {
    "rope_type": "yarn",
    "rope_theta": 1000000.0,
    "factor": 16.0,
    "original_max_position_embeddings": 16384,
    "beta_fast": 32.0,
    "beta_slow": 1.0,
    "mscale": 1.0,
    "mscale_all_dim": 1.0,
    "llama_4_scaling_beta": 0.1,
}


def plan(config: Config) -> Plan:
    config = with_defaults(config, _DEFAULTS)
    given = config.get("rope_parameters") or config.get("rope_scaling")
    config = config if given else config | {"rope_parameters": _ROPE}
    scaling = scaling_of(config)
    rope, growth = rotary(config, head_sizes(config)[2], scaling), _growth(scaling)
    return model(
        config,
        [_layer(config, index, rope, growth) for index in range(size(config, "num_hidden_layers"))],
        rms(config, "model.norm.weight"),
    )


def _growth(scaling: Scaling) -> PositionScale | None:
    beta = number(scaling, "llama_4_scaling_beta", 0.0)
    trained = size(scaling, "original_max_position_embeddings")
    return PositionScale(beta, trained) if beta else None


def _layer(config: Config, index: int, rope: Rotary, growth: PositionScale | None) -> Layer:
    prefix = f"model.layers.{index}."
    heads = attention(
        config,
        f"{prefix}self_attn.",
        rotary=rope,
        position_scale=growth,
        window=count(config, "sliding_window"),
    )
    return pre_norm_layer(config, prefix, heads, gated_mlp(config, f"{prefix}mlp."))
