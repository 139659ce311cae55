"""RWKV-7 (Peng et al. 2025) in the layout of flash-linear-attention: World and G1 models."""

import math

from llmchat.engines.transformers.families.blocks import Linear, Norm, Rwkv7Time, RwkvChannel
from llmchat.engines.transformers.families.config_values import (
    Config,
    NoPlan,
    check_divides,
    epsilon,
    flag,
    invalid,
    number,
    size,
)
from llmchat.engines.transformers.families.expert_parts import Views
from llmchat.engines.transformers.families.layers import layer_norm
from llmchat.engines.transformers.families.parts import layer_prefix, model, sequential
from llmchat.engines.transformers.families.plan import Embedding, Head, Layer, Plan, Step
from llmchat.engines.transformers.families.views import View

# What a token and the one before are mixed for, in the order of the block and of old files.
_MIXES = ("x_r", "x_k", "x_v", "x_w", "x_a", "x_g")
_OLD = ("x_r", "x_w", "x_k", "x_v", "x_a", "x_g")
# The pairs of linears: their key in a config, and their rank per square root of the width.
_PAIRS = {
    "w": ("decay_low_rank_dim", 2.5),
    "a": ("a_low_rank_dim", 2.5),
    "g": ("gate_low_rank_dim", 5.0),
    "v": ("v_low_rank_dim", 1.7),
}


def plan(config: Config) -> Plan:
    if config.get("attn") or (config.get("hidden_act") or "sqrelu") != "sqrelu":
        raise NoPlan("layers of attention, or another activation")
    hidden, vocabulary = size(config, "hidden_size"), size(config, "vocab_size")
    if not _are_all(config.get("value_dim"), hidden):
        raise NoPlan("values of another width")
    first = _norm(config, "model.layers.0.pre_norm") if flag(config, "norm_first", True) else None
    return model(
        config,
        [_layer(config, index) for index in range(size(config, "num_hidden_layers"))],
        _norm(config, "model.norm"),
        embedding=Embedding("model.embeddings.weight", norm=first),
        head=Head(Linear("lm_head", vocabulary, hidden)),
    )


def views(config: Config) -> Views:
    """Old files have the mixes of a layer in one tensor."""
    found: Views = []
    for index in range(size(config, "num_hidden_layers")):
        prefix = f"{layer_prefix(index)}attn."
        found += [(f"{prefix}{name}", View(f"{prefix}x_x", at)) for at, name in enumerate(_OLD)]
    return found


def _are_all(widths: object, hidden: int) -> bool:
    if isinstance(widths, list):
        return all(width == hidden for width in widths)
    return widths is None or widths == hidden


def _layer(config: Config, index: int) -> Layer:
    prefix = layer_prefix(index)
    return sequential(
        Step(_time(config, f"{prefix}attn.", index), _norm(config, f"{prefix}attn_norm")),
        Step(_channel(config, f"{prefix}ffn."), _norm(config, f"{prefix}ffn_norm")),
    )


def _time(config: Config, prefix: str, index: int) -> Rwkv7Time:
    hidden, (heads, width) = size(config, "hidden_size"), _heads(config)
    receptance, key, value, output = (
        Linear(f"{prefix}{name}_proj", hidden, hidden) for name in "rkvo"
    )
    ranks = {name: _rank(config, name, width) for name in ("wagv" if index else "wag")}
    lora, norm = f"{prefix}%s_lora.lora.", f"{prefix}g_norm"
    small = width * epsilon(config, "norm_eps", 1e-5)
    return Rwkv7Time(
        receptance,
        key,
        value,
        low=tuple(Linear(f"{lora % name}0", rank, hidden) for name, rank in ranks.items()),
        high=tuple(Linear(f"{lora % name}2", hidden, rank) for name, rank in ranks.items()),
        output=output,
        heads=heads,
        width=width,
        mixes=tuple(f"{prefix}{name}" for name in _MIXES),
        key_scale=f"{prefix}k_k",
        key_mix=f"{prefix}k_a",
        bonus=f"{prefix}r_k",
        norm=Norm(hidden, small, f"{norm}.weight", f"{norm}.bias", "layer", group=width),
    )


def _heads(config: Config) -> tuple[int, int]:
    """Heads, and the numbers of each: head_dim counts before num_heads."""
    hidden = size(config, "hidden_size")
    if config.get("head_dim") is None and config.get("num_heads") is not None:
        heads = size(config, "num_heads")
        check_divides(heads, hidden, "heads of the hidden size")
        return heads, hidden // heads
    width = size(config, "head_dim", 64)
    check_divides(width, hidden, "numbers of a head")
    return hidden // width, width


def _rank(config: Config, name: str, width: int) -> int:
    """As flash-linear-attention derives it where the config has none."""
    key, factor = _PAIRS[name]
    factor *= math.sqrt(size(config, "hidden_size")) * (1 if name == "g" else width / 64)
    return size(config, key, max(32, round(factor / 32) * 32))


def _channel(config: Config, prefix: str) -> RwkvChannel:
    hidden = size(config, "hidden_size")
    ratio = number(config, "hidden_ratio", 4.0, least=0.0)
    if not 0 < ratio < 1000:
        raise invalid("hidden_ratio", ratio)
    inner = size(config, "intermediate_size", 32 * math.ceil(int(hidden * ratio) / 32))
    key, value = Linear(f"{prefix}key", inner, hidden), Linear(f"{prefix}value", hidden, inner)
    return RwkvChannel(key, value, None, hidden, (f"{prefix}x_k",))


def _norm(config: Config, module: str) -> Norm:
    has_bias = flag(config, "norm_bias", True)
    return layer_norm(config, module, eps="norm_eps", has_bias=has_bias)
