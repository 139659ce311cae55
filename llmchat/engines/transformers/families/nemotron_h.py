"""Nemotron-H, Nemotron Nano 2 and Nemotron 3 Nano: each layer is one block of Mamba-2, attention
without positions (NoPE), an MLP with ReLU², or experts of such MLPs.
"""

from collections.abc import Callable

from llmchat.engines.transformers.families.blocks import (
    Block,
    Experts,
    Mamba2,
    Mlp,
)
from llmchat.engines.transformers.families.config_values import (
    Config,
    NoPlan,
    check_counts,
    check_divides,
    flag,
    invalid,
    number,
    size,
    with_defaults,
)
from llmchat.engines.transformers.families.expert_parts import Views, routed
from llmchat.engines.transformers.families.layers import plain_mlp
from llmchat.engines.transformers.families.parts import (
    activation,
    attention,
    layer_prefix,
    model,
    rms,
    sequential,
)
from llmchat.engines.transformers.families.plan import Embedding, Layer, Plan, Step
from llmchat.engines.transformers.families.recurrent_parts import mamba2
from llmchat.engines.transformers.families.views import View

_DEFAULTS = {
    "head_dim": 128,
    "mlp_hidden_act": "relu2",
    "num_key_value_heads": 8,
    "rms_norm_eps": 1e-5,
    "mamba_n_heads": 128,
    "mamba_d_head": 64,
    "mamba_d_state": 128,
    "mamba_n_groups": 8,
}
_NAMES = {
    "layer_norm_epsilon": "rms_norm_eps",
    "mamba_num_heads": "mamba_n_heads",
    "mamba_head_dim": "mamba_d_head",
    "ssm_state_size": "mamba_d_state",
    "n_groups": "mamba_n_groups",
    "conv_kernel": "mamba_d_conv",
    "use_conv_bias": "mamba_conv_bias",
}
# The letters of a hybrid_override_pattern, and the words of lists.
_KINDS = {
    "M": "mamba",
    "*": "attention",
    "-": "mlp",
    "E": "moe",
    "mamba": "mamba",
    "linear_attention": "mamba",
    "attention": "attention",
    "full_attention": "attention",
    "mlp": "mlp",
    "moe": "moe",
}


def plan(config: Config) -> Plan:
    config = with_defaults(config, _DEFAULTS, _NAMES)
    if activation(config, "mamba_hidden_act") != "silu" or config.get("moe_latent_size"):
        raise NoPlan("an activation of Mamba, or latent experts")
    layers = [_layer(config, index, kind) for index, kind in enumerate(_kinds(config))]
    return model(
        config,
        layers,
        rms(config, "model.norm_f.weight"),
        embedding=Embedding("model.embeddings.weight"),
    )


def views(config: Config) -> Views:
    """Experts as transformers keeps them in memory: stacked."""
    config = with_defaults(config, _DEFAULTS, _NAMES)
    found: Views = []
    for index, kind in enumerate(_kinds(config)):
        experts = f"{layer_prefix(index)}mixer.experts."
        for expert in range(_experts(config) if kind == "moe" else 0):
            for name in ("up_proj", "down_proj"):
                found.append((f"{experts}{expert}.{name}.weight", View(experts + name, expert)))
    return found


def _kinds(config: Config) -> list[str]:
    """What each layer is. Their number is that of the list or of the pattern."""
    found = config.get("layers_block_type") or config.get("layer_types")
    pattern = config.get("hybrid_override_pattern")
    if found is None and pattern is not None:
        if not isinstance(pattern, str) or not pattern:
            raise invalid("hybrid_override_pattern", pattern)
        found = list(pattern)
    if not isinstance(found, list) or not found:
        raise invalid("layers_block_type", found)
    check_counts({"num_hidden_layers": len(found), "n_routed_experts": _experts(config)})
    for kind in found:
        if not isinstance(kind, str) or kind not in _KINDS:
            raise invalid("layers_block_type", kind)
    return [_KINDS[kind] for kind in found]


def _layer(config: Config, index: int, kind: str) -> Layer:
    prefix = f"{layer_prefix(index)}mixer."
    return sequential(
        Step(_BLOCKS[kind](config, prefix), rms(config, f"{layer_prefix(index)}norm.weight"))
    )


def _mamba(config: Config, prefix: str) -> Mamba2:
    inner = size(config, "mamba_n_heads") * size(config, "mamba_d_head")
    groups = size(config, "mamba_n_groups")
    check_divides(groups, inner, "groups of a norm")
    norm = rms(config, f"{prefix}norm.weight", inner, group=inner // groups)
    return mamba2(config, prefix, inner, norm=norm)


def _mlp(config: Config, prefix: str) -> Mlp:
    return _squared(config, prefix, size(config, "intermediate_size", 21504))


def _squared(config: Config, prefix: str, inner: int) -> Mlp:
    return plain_mlp(config, f"{prefix}up_proj", f"{prefix}down_proj", inner, "mlp_hidden_act")


def _moe(config: Config, prefix: str) -> Experts:
    inner = size(config, "moe_intermediate_size", 7688)
    experts = (
        _squared(config, f"{prefix}experts.{number}.", inner) for number in range(_experts(config))
    )
    shared = size(config, "moe_shared_expert_intermediate_size", 7688)
    return routed(
        config,
        f"{prefix}gate",
        tuple(experts),
        size(config, "num_experts_per_tok", 2),
        score="sigmoid",
        correction=f"{prefix}gate.e_score_correction_bias",
        groups=size(config, "n_group", 1),
        top_groups=size(config, "topk_group", 1),
        normalised=flag(config, "norm_topk_prob", True),
        sum_offset=1e-20,
        factor=number(config, "routed_scaling_factor", 1.0),
        shared=_squared(config, f"{prefix}shared_experts.", shared),
    )


_BLOCKS: dict[str, Callable[[Config, str], Block]] = {
    "mamba": _mamba,
    "attention": attention,
    "mlp": _mlp,
    "moe": _moe,
}


def _experts(config: Config) -> int:
    return size(config, "n_routed_experts", 8)
