"""Qwen3-Next and Qwen3.5: three layers of Gated DeltaNet for each one of gated attention."""

from llmchat.engines.transformers.families.blocks import (
    Attention,
    Block,
    DeltaNet,
    Heads,
    Linear,
    Norm,
    Rotary,
)
from llmchat.engines.transformers.families.config_values import (
    Config,
    invalid,
    names,
    size,
)
from llmchat.engines.transformers.families.parts import (
    activation,
    gated_mlp,
    head_sizes,
    model,
    rms,
    sequential,
)
from llmchat.engines.transformers.families.plan import Layer, Plan, Step
from llmchat.engines.transformers.families.recurrent_parts import (
    joined_delta_net,
    separate_delta_net,
)
from llmchat.engines.transformers.families.rope import rotary

_DEFAULTS = {"head_dim": 256, "partial_rotary_factor": 0.25}


def plan(config: Config) -> Plan | None:
    config = _DEFAULTS | {key: value for key, value in config.items() if value is not None}
    rope = rotary(config, head_sizes(config)[2])
    if rope is None or activation(config) != "silu":
        return None
    layers = [_layer(config, index, kind, rope) for index, kind in enumerate(_kinds(config))]
    return model(config, layers, _norm(config, "model.norm.weight"))


def _kinds(config: Config) -> list[str]:
    """What mixes the tokens of each layer."""
    count = size(config, "num_hidden_layers")
    every = size(config, "full_attention_interval", 4)
    kinds = names(config, "layer_types", count) or [
        "linear_attention" if (index + 1) % every else "full_attention" for index in range(count)
    ]
    for kind in kinds:
        if kind not in ("linear_attention", "full_attention"):
            raise invalid("layer_types", kind)
    return kinds


def _layer(config: Config, index: int, kind: str, rope: Rotary) -> Layer:
    prefix = f"model.layers.{index}."
    mixer: Block = (
        _attention(config, f"{prefix}self_attn.", rope)
        if kind == "full_attention"
        else _delta_net(config, f"{prefix}linear_attn.")
    )
    return sequential(
        Step(mixer, _norm(config, f"{prefix}input_layernorm.weight")),
        Step(
            gated_mlp(config, f"{prefix}mlp."),
            _norm(config, f"{prefix}post_attention_layernorm.weight"),
        ),
    )


def _delta_net(config: Config, prefix: str) -> DeltaNet:
    is_joined = config.get("model_type") == "qwen3_next"
    return (joined_delta_net if is_joined else separate_delta_net)(config, prefix)


def _attention(config: Config, prefix: str, rope: Rotary) -> Attention:
    """Each head of q_proj has its queries, then the gates of its result."""
    hidden, (heads, kv_heads, dim) = size(config, "hidden_size"), head_sizes(config)
    keys, values = 2 * heads * dim, (2 * heads + kv_heads) * dim
    outputs = {"q_proj": keys, "k_proj": kv_heads * dim, "v_proj": kv_heads * dim}
    return Attention(
        tuple(Linear(f"{prefix}{name}", out, hidden) for name, out in outputs.items()),
        Linear(f"{prefix}o_proj", hidden, heads * dim),
        Heads(heads, dim, 0, 2 * dim),
        Heads(kv_heads, dim, keys, dim),
        Heads(kv_heads, dim, values, dim),
        dim**-0.5,
        gates=Heads(heads, dim, dim, 2 * dim),
        query_norm=_norm(config, f"{prefix}q_norm.weight", dim),
        key_norm=_norm(config, f"{prefix}k_norm.weight", dim),
        rotary=rope,
    )


def _norm(config: Config, weight: str, width: int | None = None) -> Norm:
    """The weights of norms are stored less 1."""
    return rms(config, weight, width, offset=1.0)
