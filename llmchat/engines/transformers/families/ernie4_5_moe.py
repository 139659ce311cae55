"""ERNIE 4.5 with experts: 21B-A3B and 300B-A47B."""

from llmchat.engines.transformers.families.blocks import Experts, Mlp, Rotary
from llmchat.engines.transformers.families.config_values import (
    Config,
    NoPlan,
    count,
    number,
    size,
    with_defaults,
)
from llmchat.engines.transformers.families.expert_parts import STACKED, Views, routed, separate
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
from llmchat.engines.transformers.families.views import View

_DEFAULTS = {
    "num_key_value_heads": 4, "rms_norm_eps": 1e-5, "rope_theta": 500000.0,
    "tie_word_embeddings": True,
}  # fmt: skip


def plan(config: Config) -> Plan:
    """Without a least sum of weights that could matter: the published models have 1e-12."""
    config = with_defaults(config, _DEFAULTS)
    if number(config, "moe_norm_min", 1e-12) > 1e-9:
        raise NoPlan("moe_norm_min")
    rope = rotary(config, head_sizes(config)[2], interleaved=True)
    layers = [_layer(config, index, rope) for index in range(_layers(config))]
    return model(config, layers, rms(config, "model.norm.weight"))


def views(config: Config) -> Views:
    found: Views = []
    for index in filter(lambda index: _sparse(config, index), range(_layers(config))):
        mlp = f"{layer_prefix(index)}mlp."
        found += STACKED.views(f"{mlp}experts.", f"{mlp}experts.", *_sizes(config))
        # In transformers' memory it belongs to the router.
        found.append((_correction(mlp), View(_correction(f"{mlp}gate."))))
    return found


def _layer(config: Config, index: int, rope: Rotary) -> Layer:
    prefix = layer_prefix(index)
    mlp = f"{prefix}mlp."
    block = _experts(config, mlp) if _sparse(config, index) else gated_mlp(config, mlp)
    heads = attention(config, f"{prefix}self_attn.", rotary=rope)
    return pre_norm_layer(config, prefix, heads, block)


def _experts(config: Config, prefix: str) -> Experts:
    return routed(
        config,
        f"{prefix}gate",
        separate(config, f"{prefix}experts.", *_sizes(config)),
        size(config, "moe_k", size(config, "num_experts_per_tok", 6)),
        correction=_correction(prefix),
        normalised=True,
        shared=_shared(config, prefix),
    )


def _shared(config: Config, prefix: str) -> Mlp | None:
    inner = count(config, "moe_num_shared_experts", 2) * _sizes(config)[1]
    return gated_mlp(config, f"{prefix}shared_experts.", inner) if inner else None


def _sparse(config: Config, index: int) -> bool:
    """Whether a layer has experts."""
    last = config.get("moe_layer_end_index")
    end = _layers(config) if last in (None, -1) else count(config, "moe_layer_end_index") + 1
    every = size(config, "moe_layer_interval", 1)
    return count(config, "moe_layer_start_index", 1) <= index < end and (index + 1) % every == 0


def _correction(prefix: str) -> str:
    return f"{prefix}moe_statics.e_score_correction_bias"


def _layers(config: Config) -> int:
    return size(config, "num_hidden_layers")


def _sizes(config: Config) -> tuple[int, int]:
    """Experts, and the inner width of one."""
    experts = size(config, "moe_num_experts", size(config, "num_experts", 64))
    return experts, size(config, "moe_intermediate_size")
