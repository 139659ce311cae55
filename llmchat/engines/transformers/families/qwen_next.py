"""Qwen3-Next and Qwen3.5: three layers of Gated DeltaNet for each one of gated attention; dense, or
with experts and a shared one.
"""

from llmchat.engines.transformers.families.blocks import (
    Attention,
    Block,
    DeltaNet,
    Experts,
    Heads,
    Linear,
    Mlp,
    Norm,
    Rotary,
)
from llmchat.engines.transformers.families.config_values import (
    Config,
    count,
    flag,
    invalid,
    names,
    size,
    sizes,
)
from llmchat.engines.transformers.families.expert_parts import STACKED, Views, routed, separate
from llmchat.engines.transformers.families.layers import head_norms
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
# Experts where the config does not name their number.
_EXPERTS = {"qwen3_next": 512, "qwen3_5_moe_text": 256}


def plan(config: Config) -> Plan | None:
    config = _DEFAULTS | {key: value for key, value in config.items() if value is not None}
    rope = rotary(config, head_sizes(config)[2])
    if rope is None or activation(config) != "silu":
        return None
    layers = [_layer(config, index, kind, rope) for index, kind in enumerate(_kinds(config))]
    return model(config, layers, _norm(config, "model.norm.weight"))


def views(config: Config) -> Views:
    found: Views = []
    for index in range(size(config, "num_hidden_layers")):
        if _has_experts(config, index):
            prefix = f"model.layers.{index}.mlp.experts."
            found += STACKED.views(prefix, prefix, _experts(config), _inner(config))
    return found


def _kinds(config: Config) -> list[str]:
    """What mixes the tokens of each layer."""
    layers = size(config, "num_hidden_layers")
    every = size(config, "full_attention_interval", 4)
    kinds = names(config, "layer_types", layers) or [
        "linear_attention" if (index + 1) % every else "full_attention" for index in range(layers)
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
            _mlp(config, index, f"{prefix}mlp."),
            _norm(config, f"{prefix}post_attention_layernorm.weight"),
        ),
    )


def _mlp(config: Config, index: int, prefix: str) -> Mlp | Experts:
    if not _has_experts(config, index):
        return gated_mlp(config, prefix)
    hidden = size(config, "hidden_size")
    return routed(
        config,
        f"{prefix}gate",
        separate(config, f"{prefix}experts.", _experts(config), _inner(config)),
        size(config, "num_experts_per_tok", 10 if config["model_type"] == "qwen3_next" else 8),
        normalised=flag(config, "norm_topk_prob", True),
        shared=gated_mlp(
            config, f"{prefix}shared_expert.", size(config, "shared_expert_intermediate_size", 512)
        ),
        shared_gate=Linear(f"{prefix}shared_expert_gate", 1, hidden),
    )


def _has_experts(config: Config, index: int) -> bool:
    every = size(config, "decoder_sparse_step", 1)
    is_plain = index in sizes(config, "mlp_only_layers") or (index + 1) % every
    return bool(_experts(config)) and not is_plain


def _experts(config: Config) -> int:
    return count(config, "num_experts", _EXPERTS.get(config["model_type"], 0))


def _inner(config: Config) -> int:
    return size(config, "moe_intermediate_size", 512)


def _delta_net(config: Config, prefix: str) -> DeltaNet:
    is_joined = config.get("model_type") == "qwen3_next"
    return (joined_delta_net if is_joined else separate_delta_net)(config, prefix)


def _attention(config: Config, prefix: str, rope: Rotary) -> Attention:
    """Each head of q_proj has its queries, then the gates of its result."""
    hidden, (heads, kv_heads, dim) = size(config, "hidden_size"), head_sizes(config)
    keys, values = 2 * heads * dim, (2 * heads + kv_heads) * dim
    outputs = {"q_proj": keys, "k_proj": kv_heads * dim, "v_proj": kv_heads * dim}
    norms = head_norms(config, prefix, (heads, kv_heads, dim), offset=1.0)
    return Attention(
        tuple(Linear(f"{prefix}{name}", out, hidden) for name, out in outputs.items()),
        Linear(f"{prefix}o_proj", hidden, heads * dim),
        Heads(heads, dim, 0, 2 * dim),
        Heads(kv_heads, dim, keys, dim),
        Heads(kv_heads, dim, values, dim),
        dim**-0.5,
        gates=Heads(heads, dim, dim, 2 * dim),
        query_norm=norms["query_norm"],
        key_norm=norms["key_norm"],
        rotary=rope,
    )


def _norm(config: Config, weight: str) -> Norm:
    """The weights of norms are stored less 1."""
    return rms(config, weight, offset=1.0)
