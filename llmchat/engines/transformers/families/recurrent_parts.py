"""Recurrent blocks in the words of the configs that share them."""

import math
from typing import Any

from llmchat.engines.transformers.families.blocks import DeltaNet, Heads, Linear, Mamba2, Norm
from llmchat.engines.transformers.families.config_values import (
    Config,
    check_divides,
    epsilon,
    invalid,
    number,
    size,
)
from llmchat.errors import Mismatch


def joined_delta_net(config: Config, prefix: str) -> DeltaNet:
    """Queries, keys, values and gates of a head of keys side by side (Qwen3-Next)."""
    keys, values, wide, long = _delta_sizes(config)
    shared, hidden = values // keys, size(config, "hidden_size")
    group, small = 2 * wide + 2 * shared * long, keys * (2 * wide + 2 * shared * long)
    inputs = (
        Linear(f"{prefix}in_proj_qkvz", small, hidden),
        Linear(f"{prefix}in_proj_ba", 2 * values, hidden),
    )
    places = {
        "queries": Heads(keys, wide, 0, group),
        "keys": Heads(keys, wide, wide, group),
        "values": Heads(values, long, 2 * wide, long, shared, group),
        "gates": Heads(values, long, 2 * wide + shared * long, long, shared, group),
        "beta": Heads(values, 1, small, 1, shared, 2 * shared),
        "decay": Heads(values, 1, small + shared, 1, shared, 2 * shared),
    }
    return _delta_net(config, prefix, inputs, places)


def separate_delta_net(config: Config, prefix: str) -> DeltaNet:
    """Queries, keys and values of all heads side by side, the others apart (Qwen3.5)."""
    keys, values, wide, long = _delta_sizes(config)
    hidden, read, written = size(config, "hidden_size"), keys * wide, values * long
    outputs = {
        "in_proj_qkv": 2 * read + written,
        "in_proj_z": written,
        "in_proj_b": values,
        "in_proj_a": values,
    }
    inputs = tuple(Linear(f"{prefix}{name}", out, hidden) for name, out in outputs.items())
    gates = 2 * read + written
    places = {
        "queries": Heads(keys, wide, 0, wide),
        "keys": Heads(keys, wide, read, wide),
        "values": Heads(values, long, 2 * read, long),
        "gates": Heads(values, long, gates, long),
        "beta": Heads(values, 1, gates + written, 1),
        "decay": Heads(values, 1, gates + written + values, 1),
    }
    return _delta_net(config, prefix, inputs, places)


def _delta_net(
    config: Config, prefix: str, inputs: tuple[Linear, ...], places: dict[str, Any]
) -> DeltaNet:
    _, values, _, long = _delta_sizes(config)
    return DeltaNet(
        inputs,
        Linear(f"{prefix}out_proj", size(config, "hidden_size"), values * long),
        **places,
        convolution=f"{prefix}conv1d.weight",
        kernel=size(config, "linear_conv_kernel_dim", 4),
        log_decay=f"{prefix}A_log",
        time_bias=f"{prefix}dt_bias",
        norm=Norm(values * long, epsilon(config), f"{prefix}norm.weight", group=long),
    )


def _delta_sizes(config: Config) -> tuple[int, int, int, int]:
    """Heads of keys and of values, and the numbers of each."""
    keys, values = (
        size(config, "linear_num_key_heads", 16),
        size(config, "linear_num_value_heads", 32),
    )
    check_divides(keys, values, "heads of values that share keys")
    return (
        keys, values, size(config, "linear_key_head_dim", 128),
        size(config, "linear_value_head_dim", 128),
    )  # fmt: skip


def mamba2(config: Config, prefix: str, inner: int, **options: Any) -> Mamba2:
    """inner: the numbers of all heads. options: fields of Mamba2, its `norm` above all."""
    heads, groups = size(config, "mamba_n_heads", 128), size(config, "mamba_n_groups", 1)
    state, hidden = size(config, "mamba_d_state", 256), size(config, "hidden_size")
    _check_heads(config, heads, inner)
    check_divides(groups, heads, "heads that share B and C")
    has_bias = config.get("mamba_conv_bias", True)
    return Mamba2(
        Linear(f"{prefix}in_proj", 2 * inner + 2 * groups * state + heads, hidden),
        Linear(f"{prefix}out_proj", hidden, inner),
        heads,
        inner // heads,
        state,
        groups,
        f"{prefix}conv1d.weight",
        f"{prefix}conv1d.bias" if has_bias else None,
        size(config, "mamba_d_conv", 4),
        f"{prefix}A_log",
        f"{prefix}dt_bias",
        f"{prefix}D",
        time_limits=_time_limits(config),
        **options,
    )


def _check_heads(config: Config, heads: int, inner: int) -> None:
    check_divides(heads, inner, "heads of the Mamba mixer")
    dim = config.get("mamba_d_head")
    if dim not in (None, "auto") and size(config, "mamba_d_head") * heads != inner:
        raise Mismatch(f"config.json: {heads} Mamba heads of {dim} are not {inner}")


def _time_limits(config: Config) -> tuple[float, float]:
    limits = config.get("time_step_limit")
    if limits is None:
        return 0.0, math.inf
    if not isinstance(limits, (list, tuple)) or len(limits) != 2:
        raise invalid("time_step_limit", limits)
    least = number({"time_step_limit": limits[0]}, "time_step_limit", 0.0, least=0.0)
    # JSON has no infinity: transformers writes it as an object.
    if limits[1] in (math.inf, "Infinity", {"__float__": "Infinity"}):
        return least, math.inf
    return least, number({"time_step_limit": limits[1]}, "time_step_limit", math.inf, least)
