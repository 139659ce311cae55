"""OLMoE."""

from llmchat.engines.transformers.families.blocks import Attention, Experts, Rotary
from llmchat.engines.transformers.families.config_values import (
    Config,
    NoPlan,
    flag,
    size,
    with_defaults,
)
from llmchat.engines.transformers.families.expert_parts import STACKED, Views, routed, separate
from llmchat.engines.transformers.families.layers import pre_norm_layer
from llmchat.engines.transformers.families.parts import (
    attention,
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
    if config.get("clip_qkv") is not None:
        raise NoPlan("clip_qkv")
    rope = rotary(config, head_sizes(config)[2])
    layers = [_layer(config, index, rope) for index in range(size(config, "num_hidden_layers"))]
    return model(config, layers, rms(config, "model.norm.weight"))


def views(config: Config) -> Views:
    found: Views = []
    for prefix in map(layer_prefix, range(size(config, "num_hidden_layers"))):
        experts = f"{prefix}mlp.experts."
        found += STACKED.views(experts, experts, *_sizes(config))
    return found


def _layer(config: Config, index: int, rope: Rotary) -> Layer:
    prefix = layer_prefix(index)
    heads = _attention(config, prefix, rope)
    return pre_norm_layer(config, prefix, heads, _experts(config, prefix))


def _attention(config: Config, prefix: str, rope: Rotary) -> Attention:
    heads, kv_heads, dim = head_sizes(config)
    return attention(
        config,
        f"{prefix}self_attn.",
        rotary=rope,
        query_norm=rms(config, f"{prefix}self_attn.q_norm.weight", heads * dim),
        key_norm=rms(config, f"{prefix}self_attn.k_norm.weight", kv_heads * dim),
    )


def _experts(config: Config, prefix: str) -> Experts:
    return routed(
        config,
        f"{prefix}mlp.gate",
        separate(config, f"{prefix}mlp.experts.", *_sizes(config)),
        size(config, "num_experts_per_tok", 8),
        normalised=flag(config, "norm_topk_prob"),
    )


def _sizes(config: Config) -> tuple[int, int]:
    """Experts, and the inner width of one."""
    experts = size(config, "num_experts", size(config, "num_local_experts", 64))
    return experts, size(config, "intermediate_size")
