"""Gemma 3n and 4: layers with inputs of their own, of which the last share keys and values."""

from statistics import NormalDist

from llmchat.gguf_file.architectures.row import (
    WINDOW,
    Architecture,
    Config,
    Facts,
    Shapes,
    pattern_of_windows,
    plain,
    windows,
)
from llmchat.gguf_file.header import GgufHeader

_LAYERS = {
    "embedding_length_per_layer_input": "hidden_size_per_layer_input",
    "attention.shared_kv_layers": "num_kv_shared_layers",
    "final_logit_softcapping": "final_logit_softcapping",
    **WINDOW,
}
_ALTUP = {"altup.num_inputs": "altup_num_inputs", "altup.active_idx": "altup_active_idx"}
_EXPERTS = {
    "expert_count": "num_experts",
    "expert_used_count": "top_k_experts",
    "expert_feed_forward_length": "moe_intermediate_size",
}
_KINDS = ("sliding_attention", "full_attention")


def _layer_inputs(config: Config, header: GgufHeader) -> Config:
    table = header.tensors.get("per_layer_token_embd.weight")
    return {"vocab_size_per_layer_input": table.shape[0] if table else config.get("vocab_size")}


def _read_gemma3n(own: Facts, config: Config, header: GgufHeader) -> Config:
    """A file has the deviations at which sparse layers cut, where a config has the part cut off."""
    cuts = own.get("activation_sparsity_scale") or [0.0] * config["num_hidden_layers"]
    low = header.tensors.get("blk.0.laurel_l.weight")
    theta = config.pop("rope_theta")
    return {
        "activation_sparsity_pattern": [_part(float(cut)) for cut in cuts],
        "laurel_rank": low.shape[0] if low else 64,
        "final_logit_softcapping": config.get("final_logit_softcapping", 30.0),
        "rope_theta": theta,
        "rope_local_base_freq": plain(own.get("rope.freq_base_swa", 10000.0)),
        **_layer_inputs(config, header),
        **windows({"attention.sliding_window_pattern": 5, **own}, config, header),
    }


def _part(cut: float) -> float:
    return round(NormalDist().cdf(cut), 6) if cut > -10 else 0.0


def _write_gemma3n(config: Facts, shapes: Shapes) -> Config:
    parts = config["activation_sparsity_pattern"]
    return pattern_of_windows(config, shapes) | {
        "activation_sparsity_scale": [
            NormalDist().inv_cdf(part) if part else float("-inf") for part in parts
        ],
        "rope.freq_base_swa": _rope(config, _KINDS[0])["rope_theta"],
    }


def _rope(config: Facts, kind: str) -> Facts:
    found: Facts = config["rope_parameters"][kind]
    return found


def _read_gemma4(own: Facts, config: Config, header: GgufHeader) -> Config:
    """Two kinds of layers, each with its head size, its heads of keys and its rotation."""
    layers = config["num_hidden_layers"]
    kinds = windows(own, config, header).get("layer_types") or [_KINDS[1]] * layers
    full = kinds.index(_KINDS[1]) if _KINDS[1] in kinds else 0
    heads, inner = own.get("attention.head_count_kv"), own.get("feed_forward_length")
    has_values = f"blk.{full}.attn_v.weight" in header.tensors
    config.pop("rope_scaling", None)
    return {
        "layer_types": kinds,
        "global_head_dim": config.get("head_dim"),
        "head_dim": own.get("attention.key_length_swa"),
        "attention_k_eq_v": not has_values,
        "num_key_value_heads": _one(heads, kinds, _KINDS[0]),
        "num_global_key_value_heads": _one(heads, kinds, _KINDS[1]),
        "intermediate_size": min(inner) if isinstance(inner, list) else inner,
        "use_double_wide_mlp": isinstance(inner, list) and min(inner) != max(inner),
        "enable_moe_block": bool(config.get("num_experts")),
        "rope_parameters": _ropes(own, header),
        **_layer_inputs(config, header),
    }


def _one(values: object, kinds: list[str], kind: str) -> object:
    """What the layers of a kind have, of a list or of a number for all."""
    if not isinstance(values, list):
        return values
    own = [value for value, found in zip(values, kinds, strict=False) if found == kind]
    return own[0] if own else values[0]


def _ropes(own: Facts, header: GgufHeader) -> Config:
    """Layers that see everything rotate a part of a head, the same in all published models."""
    return {
        _KINDS[1]: {
            "rope_type": "proportional",
            "partial_rotary_factor": 0.25,
            "rope_theta": plain(own.get("rope.freq_base", 1000000.0)),
        },
        _KINDS[0]: {
            "rope_type": "default",
            "rope_theta": plain(own.get("rope.freq_base_swa", 10000.0)),
        },
    }


def _write_gemma4(config: Facts, shapes: Shapes) -> Config:
    """Sizes are those of the tensors: releases of transformers keep them in different keys."""
    kinds = config["layer_types"]
    wide, narrow = (_head_size(config, kind, shapes) for kind in reversed(_KINDS))
    widths = {_KINDS[0]: narrow, _KINDS[1]: wide}
    heads = {
        kind: next(
            shapes[f"blk.{index}.attn_k.weight"][0] // widths[kind]
            for index, one in enumerate(kinds)
            if one == kind
        )
        for kind in set(kinds)
    }
    return pattern_of_windows(config, shapes) | {
        "attention.key_length": wide,
        "attention.value_length": wide,
        "attention.key_length_swa": narrow,
        "attention.value_length_swa": narrow,
        "attention.head_count_kv": [heads[kind] for kind in kinds],
        "feed_forward_length": [
            shapes[f"blk.{index}.ffn_gate.weight"][0] for index in range(len(kinds))
        ],
        "rope.dimension_count": wide,
        "rope.dimension_count_swa": narrow,
        "rope.freq_base": _rope(config, _KINDS[1])["rope_theta"],
        "rope.freq_base_swa": _rope(config, _KINDS[0])["rope_theta"],
        "embedding_length_per_layer_input": config.get("hidden_size_per_layer_input") or 0,
    }


def _head_size(config: Facts, kind: str, shapes: Shapes) -> int:
    kinds = config["layer_types"]
    name = f"blk.{kinds.index(kind)}.attn_q_norm.weight" if kind in kinds else ""
    return shapes[name][0] if name else int(config["head_dim"])


def factors_of_gemma4(config: Facts, shapes: Shapes) -> list[float]:
    """What divides the frequencies of layers that see everything: the part of a head that is not
    rotated has a factor so large that it stays.
    """
    width = _head_size(config, _KINDS[1], shapes)
    turned = int(width * _rope(config, _KINDS[1]).get("partial_rotary_factor", 0.25) / 2)
    return [1.0] * turned + [1e30] * (width // 2 - turned)


ARCHITECTURES = {
    "gemma3n": Architecture(
        "gemma3n_text", _LAYERS | _ALTUP, read=_read_gemma3n, write=_write_gemma3n
    ),
    "gemma4": Architecture(
        "gemma4_text", _LAYERS | _EXPERTS, read=_read_gemma4, write=_write_gemma4
    ),
}
