"""gpt-oss 20B and 120B."""

from llmchat.engines.transformers.families.blocks import Experts, Rotary
from llmchat.engines.transformers.families.config_values import (
    Config,
    names,
    number,
    size,
    with_defaults,
)
from llmchat.engines.transformers.families.expert_parts import Stack, Views, routed, separate
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

_DEFAULTS = {
    "head_dim": 64, "num_key_value_heads": 8, "rms_norm_eps": 1e-5, "rope_theta": 150000.0,
}  # fmt: skip
_STACK = Stack(
    "gate_up_proj", "down_proj", "gate_up_proj_bias", "down_proj_bias",
    is_transposed=True, interleaved=True,
)  # fmt: skip
# What transformers fills in where a config has no rope_parameters.
_ROPE = {
    "rope_type": "yarn", "factor": 32.0, "beta_fast": 32.0, "beta_slow": 1.0, "truncate": False,
    "original_max_position_embeddings": 4096,
}  # fmt: skip


def plan(config: Config) -> Plan:
    config = with_defaults(config, _DEFAULTS)
    if not config.get("rope_parameters") and not config.get("rope_scaling"):
        config = config | {"rope_scaling": _ROPE}
    rope = rotary(config, head_sizes(config)[2])
    windows = _windows(config)
    layers = [_layer(config, index, rope, window) for index, window in enumerate(windows)]
    return model(config, layers, rms(config, "model.norm.weight"))


def views(config: Config) -> Views:
    found: Views = []
    for prefix in map(layer_prefix, range(size(config, "num_hidden_layers"))):
        experts = f"{prefix}mlp.experts."
        found += _STACK.views(experts, experts, *_sizes(config))
    return found


def _layer(config: Config, index: int, rope: Rotary, window: int) -> Layer:
    prefix = layer_prefix(index)
    heads = attention(
        config,
        f"{prefix}self_attn.",
        rotary=rope,
        window=window,
        sinks=f"{prefix}self_attn.sinks",
    )
    return pre_norm_layer(config, prefix, heads, _experts(config, prefix))


def _experts(config: Config, prefix: str) -> Experts:
    mlps = separate(
        config,
        f"{prefix}mlp.experts.",
        *_sizes(config),
        activation="clamped_swiglu",
        limit=number(config, "swiglu_limit", 7.0),
        alpha=number(config, "swiglu_alpha", 1.702),
    )
    top = size(config, "num_experts_per_tok", 4)
    return routed(config, f"{prefix}mlp.router", mlps, top, score="softmax_of_top")


def _windows(config: Config) -> list[int]:
    layers, window = size(config, "num_hidden_layers"), size(config, "sliding_window", 128)
    kinds = names(config, "layer_types", layers)
    if kinds is None:
        return [window if index % 2 == 0 else 0 for index in range(layers)]
    return [window if kind == "sliding_attention" else 0 for kind in kinds]


def _sizes(config: Config) -> tuple[int, int]:
    """Experts, and the inner width of one."""
    return size(config, "num_local_experts", 128), size(config, "intermediate_size")
