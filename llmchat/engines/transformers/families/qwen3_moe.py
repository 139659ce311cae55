"""Qwen3-MoE: Qwen3-30B-A3B, Qwen3-Coder."""

from llmchat.engines.transformers.families.blocks import Experts, Mlp, Rotary
from llmchat.engines.transformers.families.config_values import Config, count, flag, size, sizes
from llmchat.engines.transformers.families.expert_parts import STACKED, Views, routed, separate
from llmchat.engines.transformers.families.parts import (
    attention,
    gated_mlp,
    head_norm,
    head_sizes,
    model,
    rms,
    sequential,
)
from llmchat.engines.transformers.families.plan import Layer, Plan, Step
from llmchat.engines.transformers.families.rope import rotary


def plan(config: Config) -> Plan | None:
    rope = rotary(config, head_sizes(config)[2])
    if rope is None:
        return None
    layers = [_layer(config, index, rope) for index in range(size(config, "num_hidden_layers"))]
    return model(config, layers, rms(config, "model.norm.weight"))


def views(config: Config) -> Views:
    inner, layers = size(config, "moe_intermediate_size"), size(config, "num_hidden_layers")
    found: Views = {}
    for index in range(layers):
        if _has_experts(config, index):
            prefix = f"{_prefix(index)}mlp.experts."
            found |= STACKED.views(prefix, prefix, _experts(config), inner)
    return found


def _layer(config: Config, index: int, rope: Rotary) -> Layer:
    prefix = _prefix(index)
    heads, kv_heads, _ = head_sizes(config)
    block = attention(
        config,
        f"{prefix}self_attn.",
        rotary=rope,
        window=count(config, "sliding_window") if flag(config, "use_sliding_window") else 0,
        query_norm=head_norm(config, f"{prefix}self_attn.q_norm.weight", heads),
        key_norm=head_norm(config, f"{prefix}self_attn.k_norm.weight", kv_heads),
    )
    return sequential(
        Step(block, rms(config, f"{prefix}input_layernorm.weight")),
        Step(_mlp(config, index), rms(config, f"{prefix}post_attention_layernorm.weight")),
    )


def _mlp(config: Config, index: int) -> Mlp | Experts:
    prefix = f"{_prefix(index)}mlp."
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


def _prefix(index: int) -> str:
    return f"model.layers.{index}."
