"""Kimi Linear: three layers of Kimi Delta Attention for each one of latent attention without
positions (NoPE); experts as in DeepSeek-V3 after the first layers.
"""

from typing import Any

import torch

from llmchat.engines.transformers.families.blocks import (
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
    NoPlan,
    check_divides,
    count,
    epsilon,
    flag,
    invalid,
    names,
    size,
    sizes,
    with_defaults,
)
from llmchat.engines.transformers.families.deepseek import latent_attention
from llmchat.engines.transformers.families.expert_parts import STACKED, Views
from llmchat.engines.transformers.families.glm4_moe import sigmoid_experts
from llmchat.engines.transformers.families.parts import (
    activation,
    gated_mlp,
    layer_prefix,
    model,
    rms,
    sequential,
)
from llmchat.engines.transformers.families.plan import Layer, Plan, Step
from llmchat.engines.transformers.families.views import Flat, Joined

_DEFAULTS = {
    "rms_norm_eps": 1e-5,
    "n_routed_experts": 256,
    "moe_intermediate_size": 1024,
    "routed_scaling_factor": 2.446,
    "linear_head_dim": 128,
    "linear_num_heads": 32,
    "linear_conv_kernel_dim": 4,
}
_NAMES = {
    "num_experts": "n_routed_experts",
    "num_local_experts": "n_routed_experts",
    "num_experts_per_token": "num_experts_per_tok",
    "num_shared_experts": "n_shared_experts",
    "num_expert_group": "n_group",
    "moe_renormalize": "norm_topk_prob",
}
# Of the table `linear_attn_config` in published files.
_LINEAR = {
    "head_dim": "linear_head_dim",
    "num_heads": "linear_num_heads",
    "short_conv_kernel_size": "linear_conv_kernel_dim",
}
_CONVOLUTIONS = ("q_conv1d", "k_conv1d", "v_conv1d")


def plan(config: Config) -> Plan:
    config = _modern(config)
    if activation(config) != "silu" or not flag(config, "mla_use_nope", True):
        raise NoPlan("another activation, or latent attention with positions")
    kinds = zip(_mixers(config), _mlps(config), strict=True)
    rope = _no_rope(config)
    layers = [_layer(config, index, *kind, rope) for index, kind in enumerate(kinds)]
    return model(config, layers, rms(config, "model.norm.weight"))


def views(config: Config) -> Views:
    config = _modern(config)
    found: Views = []
    for index, kind in enumerate(_mixers(config)):
        if kind == "linear_attention":
            found += _delta_views(f"{layer_prefix(index)}self_attn.")
    for index, kind in enumerate(_mlps(config)):
        if kind == "sparse":
            experts = f"{layer_prefix(index)}mlp.experts."
            counts = size(config, "n_routed_experts"), size(config, "moe_intermediate_size")
            found += STACKED.views(experts, experts, *counts)
    return found


def _delta_views(prefix: str) -> Views:
    pieces = tuple(f"{prefix}{name}.weight" for name in _CONVOLUTIONS)
    rates = f"{prefix}forget_gate.A_log"
    return [(f"{prefix}conv1d.weight", Joined(pieces)), (rates, Flat(rates))]


def _modern(config: Config) -> dict[str, Any]:
    """The config in the words of DeepSeek-V3, without the tables of published files."""
    table = config.get("linear_attn_config") or {}
    if not isinstance(table, dict):
        raise invalid("linear_attn_config", table)
    own = {new: table[old] for old, new in _LINEAR.items() if table.get(old) is not None}
    return with_defaults({**config, **own}, _DEFAULTS, _NAMES)


def _mixers(config: Config) -> list[str]:
    """What mixes the tokens of each layer; published files number the layers from 1."""
    layers = size(config, "num_hidden_layers")
    table = config.get("linear_attn_config") or {}
    kinds = names(config, "layer_types", layers)
    if kinds is None and "full_attn_layers" in table:
        full = sizes(table, "full_attn_layers")
        kinds = [_KINDS[index + 1 in full] for index in range(layers)]
    kinds = kinds or [_KINDS[bool(index) and index % 4 == 0] for index in range(layers)]
    return _checked(kinds, _KINDS, "layer_types")


_KINDS = ("linear_attention", "full_attention")


def _mlps(config: Config) -> list[str]:
    layers, first = size(config, "num_hidden_layers"), count(config, "first_k_dense_replace", 1)
    if count(config, "moe_layer_freq", 1) != 1:
        raise NoPlan("layers of experts at a distance")
    kinds = names(config, "mlp_layer_types", layers)
    kinds = kinds or ["dense" if index < first else "sparse" for index in range(layers)]
    return _checked(kinds, ("dense", "sparse"), "mlp_layer_types")


def _checked(kinds: list[str], known: tuple[str, ...], name: str) -> list[str]:
    for kind in kinds:
        if kind not in known:
            raise invalid(name, kind)
    return kinds


def _layer(config: Config, index: int, mixer: str, mlp: str, rope: Rotary) -> Layer:
    prefix = layer_prefix(index)
    attention: Block = (
        latent_attention(config, f"{prefix}self_attn.", rope)
        if mixer == "full_attention"
        else _delta_net(config, f"{prefix}self_attn.")
    )
    experts: Mlp | Experts = (
        sigmoid_experts(config, f"{prefix}mlp.")
        if mlp == "sparse"
        else gated_mlp(config, f"{prefix}mlp.")
    )
    return sequential(
        Step(attention, rms(config, f"{prefix}input_layernorm.weight")),
        Step(experts, rms(config, f"{prefix}post_attention_layernorm.weight")),
    )


def _no_rope(config: Config) -> Rotary:
    """A rotation by nothing: the part of a head that DeepSeek turns stays as it is."""
    turning = size(config, "qk_rope_head_dim", 64)
    check_divides(2, turning, "numbers of a head in pairs")
    plain = size(config, "qk_nope_head_dim", 128)
    return Rotary(torch.zeros(turning // 2), first=plain)


def _delta_net(config: Config, prefix: str) -> DeltaNet:
    hidden, heads = size(config, "hidden_size"), size(config, "linear_num_heads")
    width = size(config, "linear_head_dim")
    inner = heads * width
    outputs = {"q_proj": inner, "k_proj": inner, "v_proj": inner, "b_proj": heads}
    first = 3 * inner + heads
    gate, decay = f"{prefix}g_", f"{prefix}forget_gate.f_"
    return DeltaNet(
        tuple(Linear(f"{prefix}{name}", out, hidden) for name, out in outputs.items()),
        Linear(f"{prefix}o_proj", hidden, inner),
        queries=Heads(heads, width, 0, width),
        keys=Heads(heads, width, inner, width),
        values=Heads(heads, width, 2 * inner, width),
        gates=Heads(heads, width, first, width),
        beta=Heads(heads, 1, 3 * inner, 1),
        decay=Heads(heads, width, first + inner, width),
        convolution=f"{prefix}conv1d.weight",
        kernel=size(config, "linear_conv_kernel_dim"),
        log_decay=f"{prefix}forget_gate.A_log",
        time_bias=f"{prefix}forget_gate.dt_bias",
        norm=Norm(inner, epsilon(config), f"{prefix}o_norm.weight", group=width),
        low=tuple(Linear(f"{name}a_proj", width, hidden) for name in (gate, decay)),
        high=tuple(Linear(f"{name}b_proj", inner, width) for name in (gate, decay)),
        gate_activation="sigmoid",
    )
