"""GLM-4.5, 4.6 and 4.7, and their Air models."""

from llmchat.engines.transformers.families.blocks import Attention, Experts, Mlp, Rotary
from llmchat.engines.transformers.families.config_values import (
    Config,
    count,
    flag,
    number,
    size,
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

_DEFAULTS = {"num_key_value_heads": 8, "partial_rotary_factor": 0.5, "rms_norm_eps": 1e-5}


def plan(config: Config) -> Plan:
    config = with_defaults(config, _DEFAULTS)
    rope = rotary(config, head_sizes(config)[2])
    layers = [_layer(config, index, rope) for index in range(size(config, "num_hidden_layers"))]
    return model(config, layers, rms(config, "model.norm.weight"))


def views(config: Config) -> Views:
    return sigmoid_views(config, _first_sparse(config))


def _layer(config: Config, index: int, rope: Rotary) -> Layer:
    prefix = layer_prefix(index)
    dense = index < _first_sparse(config)
    mlp = gated_mlp(config, f"{prefix}mlp.") if dense else sigmoid_experts(config, f"{prefix}mlp.")
    return pre_norm_layer(config, prefix, _attention(config, prefix, rope), mlp)


def _attention(config: Config, prefix: str, rope: Rotary) -> Attention:
    prefix = f"{prefix}self_attn."
    norms = head_norms(config, prefix, head_sizes(config)) if flag(config, "use_qk_norm") else {}
    return attention(config, prefix, rotary=rope, **norms)


def _first_sparse(config: Config) -> int:
    return count(config, "first_k_dense_replace", 1)


def sigmoid_experts(config: Config, prefix: str) -> Experts:
    """Experts as in DeepSeek-V3: sigmoid scores, corrected for choosing, and a shared expert."""
    return routed(
        config,
        f"{prefix}gate",
        separate(config, f"{prefix}experts.", *_sizes(config)),
        size(config, "num_experts_per_tok", 8),
        score="sigmoid",
        correction=f"{prefix}gate.e_score_correction_bias",
        groups=size(config, "n_group", 1),
        top_groups=size(config, "topk_group", 1),
        normalised=flag(config, "norm_topk_prob", True),
        sum_offset=1e-20,
        factor=number(config, "routed_scaling_factor", 1.0),
        shared=shared_expert(config, prefix),
    )


def shared_expert(config: Config, prefix: str) -> Mlp | None:
    """The shared experts are one MLP."""
    inner = count(config, "n_shared_experts", 1) * size(config, "moe_intermediate_size")
    return gated_mlp(config, f"{prefix}shared_experts.", inner) if inner else None


def sigmoid_views(config: Config, first: int) -> Views:
    """Those of the experts of layers from `first` on."""
    found: Views = []
    for index in range(first, size(config, "num_hidden_layers")):
        experts = f"{layer_prefix(index)}mlp.experts."
        found += STACKED.views(experts, experts, *_sizes(config))
    return found


def _sizes(config: Config) -> tuple[int, int]:
    """Experts, and the inner width of one."""
    return size(config, "n_routed_experts"), size(config, "moe_intermediate_size")
