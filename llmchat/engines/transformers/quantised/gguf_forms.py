"""Where tensors are of architectures whose converter does more than to rename and to stack.

After llama.cpp's converters (conversion/*.py).
"""

import re
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor

from llmchat.engines.transformers.quantised.gguf_places import (
    COLUMN,
    KERNEL,
    RATES,
    Change,
    Columns,
    Piece,
    Rows,
    Step,
    Stored,
    interleaved,
    shaped,
    tiled,
)

Config = Mapping[str, Any]
# The name of a tensor in its layer, llama.cpp's prefix of the layer (`blk.3.`), and the config →
# its places, the usual one first; None: none but the one by its name.
Make = Callable[[str, str, Config], list[Stored] | None]
_LAYER = re.compile(r"^model\.layers\.(\d+)\.(.*)$")


def special_places(name: str, arch: str, config: Config) -> list[Stored] | None:
    """The places of a tensor that the names alone do not tell; None for any other."""
    make = _MAKERS.get(arch)
    if make is None:
        return None
    match = _LAYER.match(name)
    within, prefix = (match[2], f"blk.{match[1]}.") if match else (name, "")
    return make(within, prefix, config)


def _one(name: str, *changes: Change) -> list[Stored]:
    return [Stored((Piece(name),), changes)]


def _delta(name: str, blk: str, config: Config) -> list[Stored] | None:
    """Qwen3-Next and 3.5: the tensors of Gated DeltaNet."""
    part = name.removeprefix("linear_attn.")
    if part == name:
        return None
    if part == "in_proj_qkvz.weight":
        return [_queries_to_gates(blk, config), Stored((Piece(f"{blk}ssm_in.weight"),))]
    is_tiled = config["model_type"] != "qwen3_next"
    return _delta_parts(part, blk, config, partial(_tiled_values, config) if is_tiled else None)


def _delta_parts(
    part: str, blk: str, config: Config, order: Callable[..., Change | None] | None
) -> list[Stored] | None:
    """order: makes the order of heads of values, of their width and of the rows before them."""
    keys, _, wide, long = _delta_sizes(config)

    def made(name: str, width: int, *more: Change, first: int = 0) -> list[Stored]:
        moved = order(width, first) if order else None
        return _one(f"{blk}{name}", *((moved,) if moved else ()), *more)

    columns = order(long, 0, Columns) if order else None
    makers: dict[str, Callable[[], list[Stored]]] = {
        "A_log": lambda: made("ssm_a", 1, RATES),
        "dt_bias": lambda: made("ssm_dt.bias", 1),
        "conv1d.weight": lambda: made("ssm_conv1d.weight", long, KERNEL, first=2 * keys * wide),
        "in_proj_qkv.weight": lambda: made("attn_qkv.weight", long, first=2 * keys * wide),
        "in_proj_z.weight": lambda: made("attn_gate.weight", long),
        "in_proj_a.weight": lambda: made("ssm_alpha.weight", 1),
        "in_proj_b.weight": lambda: made("ssm_beta.weight", 1),
        "out_proj.weight": lambda: _one(f"{blk}ssm_out.weight", *((columns,) if columns else ())),
        # It has no 1, as the other norms have.
        "norm.weight": lambda: _one(f"{blk}ssm_norm.weight"),
    }
    return makers[part]() if part in makers else None


def _tiled_values(
    config: Config, width: int, first: int, kind: type[Rows] | type[Columns] = Rows
) -> Change | None:
    """The order of heads of values in files of Qwen3.5; None where it is that of checkpoints."""
    keys, values, _, _ = _delta_sizes(config)
    return kind(tiled(keys, values // keys, width, first)) if values != keys else None


def _delta_sizes(config: Config) -> tuple[int, int, int, int]:
    names = "num_key_heads", "num_value_heads", "key_head_dim", "value_head_dim"
    keys, values, wide, long = (int(config[f"linear_{name}"]) for name in names)
    return keys, values, wide, long


def _queries_to_gates(blk: str, config: Config) -> Stored:
    """Of each head of keys its queries, keys, values and gates here; all queries first there."""
    keys, values, wide, long = _delta_sizes(config)
    shared = values // keys * long

    def order(count: int) -> Tensor:
        starts = (0, keys * wide, 2 * keys * wide, 2 * keys * wide + keys * shared)
        sizes = (wide, wide, shared, shared)
        parts = [
            start + torch.arange(keys * size).view(keys, size)
            for start, size in zip(starts, sizes, strict=True)
        ]
        return torch.cat(parts, 1).flatten()

    pieces = (
        Piece(f"{blk}attn_qkv.weight", rows=2 * keys * wide + keys * shared),
        Piece(f"{blk}attn_gate.weight", rows=keys * shared),
    )
    return Stored(pieces, (Rows(order),))


def _latent(name: str, blk: str, config: Config) -> list[Stored] | None:
    """DeepSeek: the matrices that make keys and values of latent numbers are apart in later files,
    and that of keys is turned.
    """
    if name != "self_attn.kv_b_proj.weight":
        return None
    heads, plain, values, latent = (
        int(config[key])
        for key in ("num_attention_heads", "qk_nope_head_dim", "v_head_dim", "kv_lora_rank")
    )

    def order(count: int) -> Tensor:
        parts = [
            torch.arange(heads * plain).view(heads, plain),
            heads * plain + torch.arange(heads * values).view(heads, values),
        ]
        return torch.cat(parts, 1).flatten()

    turned = Step(
        lambda tensor: tensor.transpose(1, 2).reshape(-1, latent),
        lambda tensor: tensor.view(heads, plain, latent).transpose(1, 2),
    )
    flat = shaped((-1, latent), (heads, values, latent))
    pieces = (
        Piece(f"{blk}attn_k_b.weight", changes=(turned,), rows=heads * plain),
        Piece(f"{blk}attn_v_b.weight", changes=(flat,), rows=heads * values),
    )
    return [Stored(pieces, (Rows(order),)), Stored((Piece(f"{blk}attn_kv_b.weight"),))]


def _kimi(name: str, blk: str, config: Config) -> list[Stored] | None:
    """Kimi Linear: convolutions are three, and rates have dimensions of 1."""
    rest = name.removeprefix("self_attn.")
    if rest == "conv1d.weight":
        inner = int(config["linear_num_heads"]) * int(config["linear_head_dim"])
        kernel = int(config["linear_conv_kernel_dim"])
        change = shaped((inner, 1, kernel), (1, inner, 1, kernel))
        return [
            Stored(
                tuple(
                    Piece(f"{blk}ssm_conv1d_{letter}.weight", changes=(change,), rows=inner)
                    for letter in "qkv"
                )
            )
        ]
    if rest == "forget_gate.A_log":
        return _one(f"{blk}ssm_a", shaped((-1,), (1, 1, -1, 1)), RATES)
    if rest in _KIMI_NAMES:
        return _one(f"{blk}{_KIMI_NAMES[rest]}")
    return _latent(name, blk, config)


_KIMI_NAMES = {
    "forget_gate.dt_bias": "ssm_dt.bias",
    "forget_gate.f_a_proj.weight": "ssm_f_a.weight",
    "forget_gate.f_b_proj.weight": "ssm_f_b.weight",
}


def _mamba(part: str, blk: str, groups: int) -> list[Stored] | None:
    """part: the name of a tensor in its Mamba-2 mixer."""
    if part == "norm.weight":
        return _one(f"{blk}ssm_norm.weight", shaped((-1,), (groups, -1)))
    if part not in _MAMBA:
        return None
    name, changes = _MAMBA[part]
    return _one(f"{blk}{name}", *changes)


_MAMBA: dict[str, tuple[str, tuple[Change, ...]]] = {
    "A_log": ("ssm_a", (COLUMN, RATES)),
    "D": ("ssm_d", (COLUMN,)),
    "dt_bias": ("ssm_dt.bias", ()),
    "conv1d.weight": ("ssm_conv1d.weight", (KERNEL,)),
    "conv1d.bias": ("ssm_conv1d.bias", ()),
    "in_proj.weight": ("ssm_in.weight", ()),
    "out_proj.weight": ("ssm_out.weight", ()),
}


def _falcon_h1(name: str, blk: str, config: Config) -> list[Stored] | None:
    if name.startswith("mamba."):
        return _mamba(name.removeprefix("mamba."), blk, int(config.get("mamba_n_groups") or 1))
    if name == "pre_ff_layernorm.weight":
        return [*_one(f"{blk}ffn_norm"), *_one(f"{blk}ffn_norm.weight")]
    return None


def _granite(name: str, blk: str, config: Config) -> list[Stored] | None:
    """Granite: the shared MLP is named as one of a dense model where it is the only one."""
    if name.startswith("mamba."):
        return _mamba(name.removeprefix("mamba."), blk, int(config.get("mamba_n_groups") or 1))
    suffix = "_shexp" if config.get("num_local_experts") else ""
    if name == "shared_mlp.output_linear.weight":
        return _one(f"{blk}ffn_down{suffix}.weight")
    if name == "shared_mlp.input_linear.weight":
        inner = int(config["shared_intermediate_size"])
        names = (f"{blk}ffn_{part}{suffix}.weight" for part in ("gate", "up"))
        return [Stored(tuple(Piece(one, rows=inner) for one in names))]
    return None


def _nemotron_h(name: str, blk: str, config: Config) -> list[Stored] | None:
    """Nemotron-H: one mixer a layer, whose kind tells its names apart."""
    part = name.removeprefix("mixer.")
    if part == name:
        return None
    if found := _mamba(part, blk, int(config.get("n_groups") or 1)):
        return found
    module, _, suffix = part.rpartition(".")
    if module not in _NEMOTRON or suffix not in ("weight", "bias"):
        return None
    # The converter orders them as for a rotation, which these layers do not have.
    heads = {"q_proj": "num_attention_heads", "k_proj": "num_key_value_heads"}.get(module)
    changes = (interleaved(int(config[heads])),) if heads else ()
    return _one(f"{blk}{_NEMOTRON[module]}.{suffix}", *changes)


_NEMOTRON = {
    "q_proj": "attn_q",
    "k_proj": "attn_k",
    "v_proj": "attn_v",
    "o_proj": "attn_output",
    "up_proj": "ffn_up",
    "down_proj": "ffn_down",
    "gate": "ffn_gate_inp",
    "shared_experts.up_proj": "ffn_up_shexp",
    "shared_experts.down_proj": "ffn_down_shexp",
}


def _gemma3n(name: str, blk: str, config: Config) -> list[Stored] | None:
    for module, theirs in _ALTUP.items():
        if match := re.fullmatch(rf"model\.{module}\.(\d+)\.weight", name):
            return [Stored((Piece(theirs, int(match[1])),))]
    if name == "altup.correct_output_scale":
        return _one(f"{blk}altup_correct_scale.weight")
    return None


_ALTUP = {
    "altup_projections": "altup_proj.weight",
    "altup_unembed_projections": "altup_unembd_proj.weight",
}
_EXPERT_PART = re.compile(r"experts\.(\d+)\.(gate|up)_proj\.weight")


def _gemma4(name: str, blk: str, config: Config) -> list[Stored] | None:
    """Gemma 4: gate and up of an expert are one matrix."""
    if name in _GEMMA4:
        return _one(f"{blk}{_GEMMA4[name]}")
    match = _EXPERT_PART.fullmatch(name)
    if match is None:
        return None
    inner = int(config["moe_intermediate_size"])
    joined = Piece(
        f"{blk}ffn_gate_up_exps.weight", int(match[1]), inner * (match[2] == "up"), inner
    )
    apart = Piece(f"{blk}ffn_{match[2]}_exps.weight", int(match[1]))
    return [Stored((joined,)), Stored((apart,))]


_GEMMA4 = {
    "layer_scalar": "layer_output_scale.weight",
    "router.scale": "ffn_gate_inp.scale",
    "router.per_expert_scale": "ffn_down_exps.scale",
}


def _rwkv7(name: str, blk: str, config: Config) -> list[Stored] | None:
    part = name.removeprefix("attn.")
    if part in _MIXES:
        stacked = Piece(f"{blk}time_mix_lerp_fused.weight", _MIXES.index(part))
        return [Stored((stacked,), (shaped((1, 1, -1), (1, 1, -1)),))]
    if match := _LOW_RANK.fullmatch(part):
        number = {"0.weight": "1", "2.weight": "2", "2.bias": "0"}[match[2]]
        return _one(f"{blk}time_mix_{match[1]}{number}.weight")
    if part == "r_k":
        width = int(config.get("head_dim") or 64)
        return _one(f"{blk}time_mix_r_k.weight", shaped((-1, width), (-1,)))
    if part == "ffn.x_k":
        return _one(f"{blk}channel_mix_lerp_k.weight", shaped((-1,), (1, 1, -1)))
    module, _, suffix = part.rpartition(".")
    if module in _RWKV7:
        return _one(f"{blk}{_RWKV7[module]}.{suffix}")
    return _one(f"{blk}time_mix_{part}.weight") if part in ("k_k", "k_a") else None


_MIXES = ("x_r", "x_w", "x_k", "x_v", "x_a", "x_g")
_LOW_RANK = re.compile(r"([wavg])_lora\.lora\.(0\.weight|2\.weight|2\.bias)")
_RWKV7 = {
    "r_proj": "time_mix_receptance",
    "k_proj": "time_mix_key",
    "v_proj": "time_mix_value",
    "o_proj": "time_mix_output",
    "g_norm": "time_mix_ln",
    "attn_norm": "attn_norm",
    "ffn_norm": "attn_norm_2",
    "ffn.key": "channel_mix_key",
    "ffn.value": "channel_mix_value",
}


_MAKERS: dict[str, Make] = {
    "deepseek2": _latent,
    "falcon-h1": _falcon_h1,
    "gemma3n": _gemma3n,
    "gemma4": _gemma4,
    "granitehybrid": _granite,
    "granitemoe": _granite,
    "kimi-linear": _kimi,
    "nemotron_h": _nemotron_h,
    "nemotron_h_moe": _nemotron_h,
    "qwen35": _delta,
    "qwen35moe": _delta,
    "qwen3next": _delta,
    "rwkv7": _rwkv7,
}
