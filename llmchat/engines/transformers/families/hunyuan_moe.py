"""Hunyuan-A13B."""

from llmchat.engines.transformers.families.blocks import Experts, Rotary
from llmchat.engines.transformers.families.config_values import Config, invalid, size, with_defaults
from llmchat.engines.transformers.families.expert_parts import STACKED, Views, routed, separate
from llmchat.engines.transformers.families.layers import head_norms, pre_norm_layer
from llmchat.engines.transformers.families.parts import (
    attention,
    gated_mlp,
    head_sizes,
    layer_prefix,
    model,
    rms,
)
from llmchat.engines.transformers.families.plan import Layer, Plan
from llmchat.engines.transformers.families.rope import rotary

_DEFAULTS = {"rms_norm_eps": 1e-5}


def plan(config: Config) -> Plan:
    config = with_defaults(config, _DEFAULTS)
    rope = rotary(config, head_sizes(config)[2])
    layers = [_layer(config, index, rope) for index in range(size(config, "num_hidden_layers"))]
    return model(config, layers, rms(config, "model.norm.weight"))


def views(config: Config) -> Views:
    found: Views = []
    inner = size(config, "intermediate_size")
    for index in range(size(config, "num_hidden_layers")):
        experts = f"{layer_prefix(index)}mlp.experts."
        found += STACKED.views(experts, experts, _of_layer(config, "num_experts", index), inner)
    return found


def _layer(config: Config, index: int, rope: Rotary) -> Layer:
    prefix = layer_prefix(index)
    modules = "query_layernorm", "key_layernorm"
    block = attention(
        config,
        f"{prefix}self_attn.",
        rotary=rope,
        norms_rotated=True,
        **head_norms(config, f"{prefix}self_attn.", head_sizes(config), modules),
    )
    return pre_norm_layer(config, prefix, block, _experts(config, index))


def _experts(config: Config, index: int) -> Experts:
    prefix = f"{layer_prefix(index)}mlp."
    count, inner = _of_layer(config, "num_experts", index), size(config, "intermediate_size")
    return routed(
        config,
        f"{prefix}gate.wg",
        separate(config, f"{prefix}experts.", count, inner),
        _of_layer(config, "moe_topk", index),
        normalised=True,
        shared=gated_mlp(config, f"{prefix}shared_mlp."),
    )


def _of_layer(config: Config, name: str, index: int) -> int:
    """A number for all layers, or one for each."""
    values = config.get(name)
    if not isinstance(values, list):
        return size(config, name, 1)
    if len(values) <= index:
        raise invalid(name, values)
    return size({name: values[index]}, name)
