"""LFM2: short convolutions and a few layers of attention; dense, or with experts after the first
layers.
"""

from llmchat.engines.transformers.families.blocks import (
    Attention,
    Block,
    Experts,
    Linear,
    Mlp,
    Norm,
    Rotary,
    ShortConvolution,
)
from llmchat.engines.transformers.families.config_values import (
    Config,
    count,
    epsilon,
    flag,
    invalid,
    names,
    number,
    size,
)
from llmchat.engines.transformers.families.expert_parts import STACKED, Views, routed, separate
from llmchat.engines.transformers.families.parts import (
    attention,
    gated_mlp,
    head_sizes,
    model,
    sequential,
)
from llmchat.engines.transformers.families.plan import Layer, Plan, Step
from llmchat.engines.transformers.families.rope import rotary

_MLP_NAMES = ("w1", "w3", "w2")


def plan(config: Config) -> Plan | None:
    config = {"rope_theta": 1e6} | {
        key: value for key, value in config.items() if value is not None
    }
    rope = rotary(config, head_sizes(config)[2])
    if rope is None:
        return None
    layers = [_layer(config, index, kind, rope) for index, kind in enumerate(_kinds(config))]
    tied = config.get("tie_embedding", config.get("tie_word_embeddings", True))
    config = dict(config) | {"tie_word_embeddings": tied}
    return model(config, layers, _norm(config, "model.embedding_norm.weight"))


def views(config: Config) -> Views:
    found: Views = []
    for index in range(size(config, "num_hidden_layers")):
        if _has_experts(config, index):
            prefix, inner = f"model.layers.{index}.feed_forward.experts.", _expert_size(config)
            found += STACKED.views(prefix, prefix, _experts(config), inner, _MLP_NAMES)
    return found


def _kinds(config: Config) -> list[str]:
    layers = size(config, "num_hidden_layers")
    kinds = names(config, "layer_types", layers)
    if kinds is None:
        attending = config.get("full_attn_idxs") or range(layers)
        kinds = ["full_attention" if index in attending else "conv" for index in range(layers)]
    for kind in kinds:
        if kind not in ("conv", "full_attention"):
            raise invalid("layer_types", kind)
    return kinds


def _layer(config: Config, index: int, kind: str, rope: Rotary) -> Layer:
    prefix = f"model.layers.{index}."
    mixer: Block = (
        _convolution(config, f"{prefix}conv.")
        if kind == "conv"
        else _attention(config, f"{prefix}self_attn.", rope)
    )
    return sequential(
        Step(mixer, _norm(config, f"{prefix}operator_norm.weight")),
        Step(
            _mlp(config, index, f"{prefix}feed_forward."),
            _norm(config, f"{prefix}ffn_norm.weight"),
        ),
    )


def _convolution(config: Config, prefix: str) -> ShortConvolution:
    width = size(config, "hidden_size")
    return ShortConvolution(
        Linear(f"{prefix}in_proj", 3 * width, width),
        Linear(f"{prefix}out_proj", width, width),
        width,
        size(config, "conv_L_cache", 3),
        f"{prefix}conv.weight",
        f"{prefix}conv.bias" if flag(config, "conv_bias") else None,
    )


def _attention(config: Config, prefix: str, rope: Rotary) -> Attention:
    hidden, (heads, kv_heads, dim) = size(config, "hidden_size"), head_sizes(config)
    small = epsilon(config, "norm_eps", 1e-5)
    return attention(
        config,
        prefix,
        output=Linear(f"{prefix}out_proj", hidden, heads * dim),
        query_norm=Norm(heads * dim, small, f"{prefix}q_layernorm.weight", group=dim),
        key_norm=Norm(kv_heads * dim, small, f"{prefix}k_layernorm.weight", group=dim),
        rotary=rope,
    )


def _mlp(config: Config, index: int, prefix: str) -> Mlp | Experts:
    if not _has_experts(config, index):
        inner = size(config, "block_ff_dim", size(config, "intermediate_size", 12288))
        inner = _adjusted(config, inner)
        return gated_mlp(config, prefix, inner, _MLP_NAMES, activation="silu")
    inner, experts = _expert_size(config), f"{prefix}experts."
    return routed(
        config,
        f"{prefix}gate",
        separate(config, experts, _experts(config), inner, _MLP_NAMES, activation="silu"),
        size(config, "num_experts_per_tok", 4),
        score="sigmoid",
        correction=f"{prefix}expert_bias" if flag(config, "use_expert_bias", True) else None,
        normalised=flag(config, "norm_topk_prob", True),
        sum_offset=1e-6,
        factor=number(config, "routed_scaling_factor", 1.0),
    )


def _has_experts(config: Config, index: int) -> bool:
    is_mixture = config.get("model_type") == "lfm2_moe"
    return is_mixture and index >= count(config, "num_dense_layers", 2)


def _experts(config: Config) -> int:
    return size(config, "num_experts", 32)


def _expert_size(config: Config) -> int:
    return size(config, "moe_intermediate_size", 1792)


def _adjusted(config: Config, inner: int) -> int:
    """Two thirds of the size in the config, times a factor, in whole blocks."""
    if config.get("model_type") == "lfm2_moe" or not flag(config, "block_auto_adjust_ff_dim", True):
        return inner
    inner, multiple = 2 * inner // 3, size(config, "block_multiple_of", 256)
    inner = int(number(config, "block_ffn_dim_multiplier", 1.0, least=0.0) * inner)
    return -(-inner // multiple) * multiple


def _norm(config: Config, weight: str) -> Norm:
    return Norm(size(config, "hidden_size"), epsilon(config, "norm_eps", 1e-5), weight)
