"""The language models of Llama 4: Scout and Maverick."""

from llmchat.engines.transformers.families.blocks import (
    Attention,
    Experts,
    Mlp,
    PositionScale,
    Rotary,
)
from llmchat.engines.transformers.families.config_values import (
    Config,
    count,
    flag,
    names,
    number,
    size,
    sizes,
    with_defaults,
)
from llmchat.engines.transformers.families.expert_parts import Stack, Views, routed, separate
from llmchat.engines.transformers.families.layers import pre_norm_layer
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

_DEFAULTS = {
    "head_dim": 128, "num_key_value_heads": 8, "rms_norm_eps": 1e-5, "rope_theta": 500000.0,
}  # fmt: skip
_STACK = Stack("gate_up_proj", "down_proj", is_transposed=True)


def plan(config: Config) -> Plan:
    config = _text(config)
    rope = rotary(config, head_sizes(config)[2], interleaved=True)
    layers = [_layer(config, index, rope) for index in range(_layers(config))]
    return model(config, layers, rms(config, "model.norm.weight"))


def views(config: Config) -> Views:
    config = _text(config)
    found: Views = []
    for index in filter(lambda index: _sparse(config, index), range(_layers(config))):
        experts = f"{layer_prefix(index)}feed_forward.experts."
        found += _STACK.views(experts, experts, *_sizes(config))
    return found


def _text(config: Config) -> Config:
    """With transformers' defaults."""
    inner = config.get("text_config")
    text = inner if isinstance(inner, dict) else config
    return with_defaults(text, _DEFAULTS)


def _layer(config: Config, index: int, rope: Rotary) -> Layer:
    prefix = layer_prefix(index)
    feed_forward = f"{prefix}feed_forward."
    block: Mlp | Experts
    if _sparse(config, index):
        block = _experts(config, feed_forward)
    else:
        block = gated_mlp(config, feed_forward, size(config, "intermediate_size_mlp", 16384))
    return pre_norm_layer(config, prefix, _attention(config, index, rope), block)


def _attention(config: Config, index: int, rope: Rotary) -> Attention:
    """Layers with a rotary embedding can norm queries and keys behind it; the others scale queries
    by their position.
    """
    prefix, (heads, kv_heads, dim) = f"{layer_prefix(index)}self_attn.", head_sizes(config)
    chunk = size(config, "attention_chunk_size", 8192) if _is_chunked(config, index) else 0
    if not _turns(config, index):
        return attention(config, prefix, chunk=chunk, position_scale=_position_scale(config))
    if not flag(config, "use_qk_norm", True):
        return attention(config, prefix, chunk=chunk, rotary=rope)
    return attention(
        config,
        prefix,
        chunk=chunk,
        rotary=rope,
        query_norm=rms(config, None, heads * dim, group=dim),
        key_norm=rms(config, None, kv_heads * dim, group=dim),
        norms_rotated=True,
    )


def _position_scale(config: Config) -> PositionScale | None:
    if not flag(config, "attn_temperature_tuning", True):
        return None
    beta, length = number(config, "attn_scale", 0.1), number(config, "floor_scale", 8192)
    return PositionScale(beta, length, shift=1)


def _experts(config: Config, prefix: str) -> Experts:
    inner = size(config, "intermediate_size")
    return routed(
        config,
        f"{prefix}router",
        separate(config, f"{prefix}experts.", *_sizes(config)),
        size(config, "num_experts_per_tok", 1),
        score="sigmoid",
        weights_input=True,
        shared=gated_mlp(config, f"{prefix}shared_expert.", inner),
    )


def _sparse(config: Config, index: int) -> bool:
    """Whether a layer has experts."""
    if config.get("moe_layers") is not None:
        return index in sizes(config, "moe_layers")
    return (index + 1) % size(config, "interleave_moe_layer_step", 1) == 0


def _turns(config: Config, index: int) -> bool:
    """Whether a layer has a rotary embedding."""
    flags = sizes(config, "no_rope_layers")
    if flags:
        return len(flags) > index and flags[index] != 0
    return (index + 1) % size(config, "no_rope_layer_interval", 4) != 0


def _is_chunked(config: Config, index: int) -> bool:
    kinds = names(config, "layer_types", _layers(config))
    if not count(config, "attention_chunk_size", 8192):
        return False
    return kinds[index] == "chunked_attention" if kinds else _turns(config, index)


def _layers(config: Config) -> int:
    return size(config, "num_hidden_layers")


def _sizes(config: Config) -> tuple[int, int]:
    """Experts, and the inner width of one."""
    return size(config, "num_local_experts", 16), size(config, "intermediate_size")
