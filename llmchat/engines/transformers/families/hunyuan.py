"""Hunyuan without experts: QK norm after the rotary embedding."""

from llmchat.engines.transformers.families.blocks import Rotary
from llmchat.engines.transformers.families.config_values import (
    Config,
    number,
    size,
    with_defaults,
)
from llmchat.engines.transformers.families.layers import head_norms, pre_norm_layer
from llmchat.engines.transformers.families.parts import (
    attention,
    gated_mlp,
    head_sizes,
    model,
    rms,
)
from llmchat.engines.transformers.families.plan import Layer, Plan
from llmchat.engines.transformers.families.rope import rotary, scaling_of

_DEFAULTS = {"max_position_embeddings": 2048, "rms_norm_eps": 1e-5}


def plan(config: Config) -> Plan:
    config = with_defaults(config, _DEFAULTS)
    rope = _rotary(config)
    return model(
        config,
        [_layer(config, index, rope) for index in range(size(config, "num_hidden_layers"))],
        rms(config, "model.norm.weight"),
    )


def _rotary(config: Config) -> Rotary:
    """`dynamic` with an alpha is NTK scaling that is the same for every length."""
    scaling, dim = scaling_of(config), head_sizes(config)[2]
    alpha = number(scaling, "alpha", 0.0, least=0.0)
    if scaling["rope_type"] == "dynamic" and alpha and dim > 2:
        theta = number(scaling, "rope_theta", 10000.0) * alpha ** (dim / (dim - 2))
        scaling |= {"rope_type": "default", "rope_theta": theta}
    return rotary(config, dim, scaling)


def _layer(config: Config, index: int, rope: Rotary) -> Layer:
    prefix = f"model.layers.{index}."
    names = "query_layernorm", "key_layernorm"
    norms = head_norms(config, f"{prefix}self_attn.", head_sizes(config), names)
    heads = attention(config, f"{prefix}self_attn.", rotary=rope, norms_rotated=True, **norms)
    return pre_norm_layer(config, prefix, heads, gated_mlp(config, f"{prefix}mlp."))
