"""Qwen3-MoE (Qwen3-30B-A3B, Qwen3-Coder) and Qwen2-MoE (Qwen1.5-MoE-A2.7B, Qwen2-57B-A14B)."""

from typing import Any

from llmchat.engines.transformers.families.blocks import Attention, Experts, Linear, Mlp, Rotary
from llmchat.engines.transformers.families.config_values import (
    Config,
    count,
    flag,
    size,
    sizes,
    with_defaults,
)
from llmchat.engines.transformers.families.expert_parts import STACKED, Views, routed, separate
from llmchat.engines.transformers.families.layers import (
    head_norms,
    kinds_of_layers,
    pre_norm_layer,
    windows_of,
)
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

_DEFAULTS: dict[str, dict[str, Any]] = {
    "qwen2_moe": {
        "max_window_layers": 28, "num_experts": 60, "num_experts_per_tok": 4,
        "num_key_value_heads": 16, "shared_expert_intermediate_size": 5632, "sliding_window": 4096,
    },
    "qwen3_moe": {"num_experts_per_tok": 8, "num_key_value_heads": 4, "sliding_window": 4096},
}  # fmt: skip


def plan(config: Config) -> Plan:
    config = with_defaults(config, _DEFAULTS[str(config["model_type"])])
    rope = rotary(config, head_sizes(config)[2])
    layers = [_layer(config, index, rope, window) for index, window in enumerate(_windows(config))]
    return model(config, layers, rms(config, "model.norm.weight"))


def views(config: Config) -> Views:
    config = with_defaults(config, _DEFAULTS[str(config["model_type"])])
    inner, layers = size(config, "moe_intermediate_size"), size(config, "num_hidden_layers")
    found: Views = []
    for index in range(layers):
        if _has_experts(config, index):
            prefix = f"{layer_prefix(index)}mlp.experts."
            found += STACKED.views(prefix, prefix, _experts(config), inner)
    return found


def _layer(config: Config, index: int, rope: Rotary, window: int) -> Layer:
    prefix = layer_prefix(index)
    block = _attention(config, f"{prefix}self_attn.", rope, window)
    return pre_norm_layer(config, prefix, block, _mlp(config, index))


def _attention(config: Config, prefix: str, rope: Rotary, window: int) -> Attention:
    norms = head_norms(config, prefix, head_sizes(config)) if not _is_old(config) else {}
    return attention(config, prefix, rotary=rope, window=window, **norms)


def _windows(config: Config) -> list[int]:
    """Of each layer; Qwen2-MoE slides in every other one of the first layers."""
    layers = size(config, "num_hidden_layers")
    if not flag(config, "use_sliding_window"):
        return [0] * layers
    if not _is_old(config):
        return [count(config, "sliding_window")] * layers
    first = size(config, "max_window_layers")
    slides = ["sliding_attention", "full_attention"] * layers
    default = slides[: min(first, layers)] + ["full_attention"] * max(0, layers - first)
    return windows_of(config, kinds_of_layers(config, layers, default))


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
        size(config, "num_experts_per_tok"),
        normalised=flag(config, "norm_topk_prob"),
        **(_shared(config, prefix) if _is_old(config) else {}),
    )


def _shared(config: Config, prefix: str) -> dict[str, Mlp | Linear]:
    inner = size(config, "shared_expert_intermediate_size")
    gate = Linear(f"{prefix}shared_expert_gate", 1, size(config, "hidden_size"))
    return {
        "shared": gated_mlp(config, f"{prefix}shared_expert.", inner),
        "shared_gate": gate,
    }


def _is_old(config: Config) -> bool:
    """Qwen2-MoE has a shared expert and no norms of heads."""
    return str(config["model_type"]) == "qwen2_moe"


def _has_experts(config: Config, index: int) -> bool:
    every = size(config, "decoder_sparse_step", 1)
    return index not in sizes(config, "mlp_only_layers") and (index + 1) % every == 0


def _experts(config: Config) -> int:
    return size(config, "num_experts", size(config, "num_local_experts", 128))
