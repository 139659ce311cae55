"""Falcon-H1: attention and Mamba-2 in parallel in each layer."""

from collections.abc import Sequence

from llmchat.engines.transformers.families.blocks import Attention, Linear, Mamba2, Norm, Rotary
from llmchat.engines.transformers.families.config_values import (
    Config,
    check_divides,
    flag,
    invalid,
    number,
    size,
)
from llmchat.engines.transformers.families.parts import (
    activation,
    attention,
    gated_mlp,
    head_sizes,
    model,
    rms,
    sequential,
)
from llmchat.engines.transformers.families.plan import Embedding, Head, Layer, Plan, Step
from llmchat.engines.transformers.families.recurrent_parts import mamba2
from llmchat.engines.transformers.families.rope import rotary

_DEFAULTS = {"rms_norm_eps": 1e-5, "num_key_value_heads": 8}


def plan(config: Config) -> Plan | None:
    config = _DEFAULTS | {key: value for key, value in config.items() if value is not None}
    rope = rotary(config, head_sizes(config)[2])
    if rope is None or activation(config) != "silu":
        return None
    layers = [_layer(config, index, rope) for index in range(size(config, "num_hidden_layers"))]
    hidden, vocabulary = size(config, "hidden_size"), size(config, "vocab_size")
    embedding = Embedding("model.embed_tokens.weight", number(config, "embedding_multiplier", 1.0))
    scale = number(config, "lm_head_multiplier", 1.0)
    return model(
        config,
        layers,
        rms(config, "model.final_layernorm.weight"),
        embedding=embedding,
        head=Head(Linear("lm_head", vocabulary, hidden), scale=scale),
    )


def _layer(config: Config, index: int, rope: Rotary) -> Layer:
    prefix = f"model.layers.{index}."
    gate_scale, down_scale = _factors(config, "mlp_multipliers", 2)
    mlp = gated_mlp(config, f"{prefix}feed_forward.", gate_scale=gate_scale)
    mixers = (
        Step(
            _mamba(config, f"{prefix}mamba."),
            _input_norm(config, prefix, "ssm_in_multiplier"),
            scale=number(config, "ssm_out_multiplier", 1.0),
        ),
        Step(
            _attention(config, f"{prefix}self_attn.", rope),
            _input_norm(config, prefix, "attention_in_multiplier"),
            scale=number(config, "attention_out_multiplier", 1.0),
        ),
    )
    norm = rms(config, f"{prefix}pre_ff_layernorm.weight")
    return Layer((mixers, *sequential(Step(mlp, norm, scale=down_scale)).stages))


def _input_norm(config: Config, prefix: str, factor: str) -> Norm:
    return rms(config, f"{prefix}input_layernorm.weight", scale=number(config, factor, 1.0))


def _attention(config: Config, prefix: str, rope: Rotary) -> Attention:
    """The factor of keys is one of scores."""
    factor = number(config, "key_multiplier", 1.0)
    return attention(config, prefix, rotary=rope, scale=factor * head_sizes(config)[2] ** -0.5)


def _mamba(config: Config, prefix: str) -> Mamba2:
    expanded = int(number(config, "mamba_expand", 2) * size(config, "hidden_size"))
    inner, groups = size(config, "mamba_d_ssm", expanded), size(config, "mamba_n_groups", 1)
    check_divides(groups, inner, "groups of a norm")
    norm = rms(config, f"{prefix}norm.weight", inner, group=inner // groups)
    gate, x, b, c, dt = _factors(config, "ssm_multipliers", 5)
    return mamba2(
        config,
        prefix,
        inner,
        norm=norm if flag(config, "mamba_rms_norm") else None,
        gate_after=flag(config, "mamba_norm_before_gate", True),
        factors=(gate, x, b, c, dt),
    )


def _factors(config: Config, name: str, count: int) -> Sequence[float]:
    values = config.get(name) or [1.0] * count
    if not isinstance(values, list) or len(values) != count:
        raise invalid(name, values)
    return [number({name: value}, name, 1.0) for value in values]
