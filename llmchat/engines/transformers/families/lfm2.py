"""LFM2: short convolutions with a few layers of attention between them."""

from llmchat.engines.transformers.families.blocks import (
    Attention,
    Block,
    Linear,
    Mlp,
    Norm,
    Rotary,
    ShortConvolution,
)
from llmchat.engines.transformers.families.config_values import (
    Config,
    epsilon,
    flag,
    invalid,
    names,
    number,
    size,
)
from llmchat.engines.transformers.families.parts import (
    attention,
    gated_mlp,
    head_sizes,
    model,
    sequential,
)
from llmchat.engines.transformers.families.plan import Layer, Plan, Step
from llmchat.engines.transformers.families.rope import rotary


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


def _kinds(config: Config) -> list[str]:
    count = size(config, "num_hidden_layers")
    kinds = names(config, "layer_types", count)
    if kinds is None:
        attending = config.get("full_attn_idxs") or range(count)
        kinds = ["full_attention" if index in attending else "conv" for index in range(count)]
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
        Step(_mlp(config, f"{prefix}feed_forward."), _norm(config, f"{prefix}ffn_norm.weight")),
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
    hidden, (heads, _, dim) = size(config, "hidden_size"), head_sizes(config)
    return attention(
        config,
        prefix,
        output=Linear(f"{prefix}out_proj", hidden, heads * dim),
        query_norm=_norm(config, f"{prefix}q_layernorm.weight", dim),
        key_norm=_norm(config, f"{prefix}k_layernorm.weight", dim),
        rotary=rope,
    )


def _mlp(config: Config, prefix: str) -> Mlp:
    inner = size(config, "block_ff_dim", size(config, "intermediate_size", 12288))
    return gated_mlp(
        config, prefix, _adjusted(config, inner), ("w1", "w3", "w2"), activation="silu"
    )


def _adjusted(config: Config, inner: int) -> int:
    """Two thirds of the size in the config, times a factor, in whole blocks."""
    if config.get("model_type") == "lfm2_moe" or not flag(config, "block_auto_adjust_ff_dim", True):
        return inner
    inner, multiple = 2 * inner // 3, size(config, "block_multiple_of", 256)
    inner = int(number(config, "block_ffn_dim_multiplier", 1.0, least=0.0) * inner)
    return -(-inner // multiple) * multiple


def _norm(config: Config, weight: str, width: int | None = None) -> Norm:
    count = size(config, "hidden_size") if width is None else width
    return Norm(count, epsilon(config, "norm_eps", 1e-5), weight)
