"""Qwen3-MoE: Qwen3-30B-A3B, Qwen3-Coder."""

from llmchat.engines.transformers.families.blocks import Experts, Mlp, Rotary
from llmchat.engines.transformers.families.config_values import (
    Config,
    count,
    flag,
    size,
    sizes,
    with_defaults,
)
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

_DEFAULTS = {"num_key_value_heads": 4, "sliding_window": 4096}


def plan(config: Config) -> Plan:
    config = with_defaults(config, _DEFAULTS)
    rope = rotary(config, head_sizes(config)[2])
    layers = [_layer(config, index, rope) for index in range(size(config, "num_hidden_layers"))]
    return model(config, layers, rms(config, "model.norm.weight"))


def views(config: Config) -> Views:
    inner, layers = size(config, "moe_intermediate_size"), size(config, "num_hidden_layers")
    found: Views = []
    for index in range(layers):
        if _has_experts(config, index):
            prefix = f"{layer_prefix(index)}mlp.experts."
            found += STACKED.views(prefix, prefix, _experts(config), inner)
    return found


def _layer(config: Config, index: int, rope: Rotary) -> Layer:
    prefix = layer_prefix(index)
    block = attention(
        config,
        f"{prefix}self_attn.",
        rotary=rope,
        window=count(config, "sliding_window") if flag(config, "use_sliding_window") else 0,
        **head_norms(config, f"{prefix}self_attn.", head_sizes(config)),
    )
    return pre_norm_layer(config, prefix, block, _mlp(config, index))


def _mlp(config: Config, index: int) -> Mlp | Experts:
    prefix = f"{layer_prefix(index)}mlp."
    if not _has_experts(config, index):
        return gated_mlp(config, prefix)
    inner = size(config, "moe_intermediate_size")
    experts = separate(config, f"{prefix}experts.", _experts(config), inner)
    return routed(
        config,
        f"{prefix}gate",
        experts,
        size(config, "num_experts_per_tok", 8),
        normalised=flag(config, "norm_topk_prob"),
    )


def _has_experts(config: Config, index: int) -> bool:
    every = size(config, "decoder_sparse_step", 1)
    return index not in sizes(config, "mlp_only_layers") and (index + 1) % every == 0


def _experts(config: Config) -> int:
    return size(config, "num_experts", size(config, "num_local_experts", 128))
