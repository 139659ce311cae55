"""The facts of a GGUF file from a config.json: what config.py reads, turned round.

The config is complete, as transformers writes it: a key that is missing has no meaning.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from llmchat.gguf_file.architectures import ARCHITECTURES, COMMON
from llmchat.gguf_file.architectures.gemmas import factors_of_gemma4
from llmchat.gguf_file.architectures.row import Shapes
from llmchat.gguf_file.config import llama3_factors

Config = Mapping[str, Any]

_TYPES = {
    kind: name
    for name, known in ARCHITECTURES.items()
    if known.is_written
    for kind in (known.model_type, *known.also)
}
# What llama.cpp reads as float32, whatever a config.json writes.
_FLOATS = (
    "epsilon", "scale", "softcapping", "freq_base", "freq_base_swa", "factor", "beta_fast",
    "beta_slow",
)  # fmt: skip


class FileFacts(NamedTuple):
    """values: the keys of the architecture, in full. factors: tensors of rotary factors."""

    architecture: str
    values: dict[str, Any]
    factors: dict[str, list[float]]


def architecture_of(config: Config) -> str | None:
    """llama.cpp's name for the architecture of a model; None for one that is not written."""
    found = _TYPES.get(str(config.get("model_type")))
    if found == "nemotron_h_moe" and not {"moe", "E"} & set(config.get("layers_block_type") or "E"):
        return "nemotron_h"
    return found


def facts_of(config: Config, shapes: Shapes) -> FileFacts:
    """The facts of a model whose architecture is known. shapes: of the tensors of the file."""
    arch = architecture_of(config)
    assert arch is not None
    names = {**COMMON, **ARCHITECTURES[arch].keys}
    found = {theirs: _value(config, ours) for theirs, ours in names.items()}
    own = {theirs: value for theirs, value in found.items() if value is not None}
    if "attention.key_length" in own:
        own["attention.value_length"] = own["attention.key_length"]
    own["vocab_size"] = shapes["token_embd.weight"][0]
    rope, factors = _rope(config) if ARCHITECTURES[arch].is_rotary else ({}, {})
    own |= rope
    if arch == "gemma4":
        factors = {"rope_freqs.weight": factors_of_gemma4(config, shapes)}
    if write := ARCHITECTURES[arch].write:
        own |= write(config, shapes)
    values = {
        _full(arch, name): _typed(name, value) for name, value in own.items() if value is not None
    }
    return FileFacts(arch, values, factors)


def _full(arch: str, name: str) -> str:
    """A key of the file; those of xIELU have no architecture."""
    return name if name.startswith("xielu.") else f"{arch}.{name}"


def _value(config: Config, name: str) -> Any:
    """Releases of transformers have two names for the number of experts."""
    value = config.get(name)
    return config.get("num_local_experts") if value is None and name == "num_experts" else value


def _typed(name: str, value: Any) -> Any:
    return float(value) if name.endswith(_FLOATS) and not isinstance(value, list) else value


def _rope(config: Config) -> tuple[dict[str, Any], dict[str, list[float]]]:
    """The facts of rotary embeddings, and the tensors of their factors."""
    scaling = _scaling_of(config, "full_attention")
    width = _rotated(config, scaling)
    facts: dict[str, Any] = {
        "rope.dimension_count": width,
        "rope.freq_base": scaling.get("rope_theta") or 10000.0,
    }
    local = _scaling_of(config, "sliding_attention").get("rope_theta")
    if config.get("model_type") == "gemma3_text" and local:
        facts["rope.freq_base_swa"] = local
    make = _KINDS.get(str(scaling.get("rope_type")))
    more, factors = make(config, scaling, width) if make else ({}, {})
    return facts | more, factors


def _scaling_of(config: Config, kind: str) -> dict[str, Any]:
    """The rotary scaling of a kind of layers, with `rope_type`, `rope_theta` and the length that it
    was trained for.
    """
    found = config.get("rope_scaling") or config.get("rope_parameters") or {}
    of_kind = found.get(kind)
    scaling = dict(of_kind if isinstance(of_kind, dict) else found)
    scaling.setdefault("rope_type", scaling.get("type") or "default")
    scaling.setdefault("rope_theta", config.get("rope_theta"))
    trained = "original_max_position_embeddings"
    lengths = config.get(trained), scaling.get(trained), config.get("max_position_embeddings")
    scaling[trained] = next((length for length in lengths if length is not None), None)
    return scaling


def _rotated(config: Config, scaling: dict[str, Any]) -> int:
    """How many numbers of a head are rotated."""
    heads = config["num_attention_heads"]
    width = config.get("head_dim") or config["hidden_size"] // heads
    parts = (
        scaling.get("partial_rotary_factor"),
        config.get("partial_rotary_factor"),
        config.get("rotary_pct"),
    )
    return int(width * next(filter(None, parts), 1.0))


Scaled = tuple[dict[str, Any], dict[str, list[float]]]


def _linear(config: Config, scaling: Config, width: int) -> Scaled:
    return {"rope.scaling.type": "linear", "rope.scaling.factor": scaling["factor"]}, {}


def _yarn(config: Config, scaling: Config, width: int) -> Scaled:
    trained = scaling["original_max_position_embeddings"]
    named = {
        "factor": scaling.get("factor") or config["max_position_embeddings"] / trained,
        "original_context_length": trained,
        "yarn_beta_fast": scaling.get("beta_fast"),
        "yarn_beta_slow": scaling.get("beta_slow"),
        "yarn_attn_factor": scaling.get("attention_factor"),
    }
    if magnitude := scaling.get("attention_factor"):
        # llama.cpp multiplies the usual magnitude with this one, and reads no other.
        named["attn_factor"] = magnitude / (0.1 * math.log(named["factor"]) + 1.0)
    given = {name: value for name, value in named.items() if value is not None}
    facts = {f"rope.scaling.{name}": value for name, value in given.items()}
    return {"rope.scaling.type": "yarn", **facts}, {}


def _llama3(config: Config, scaling: Config, width: int) -> Scaled:
    factors = llama3_factors(
        scaling["rope_theta"] or 10000.0,
        width // 2,
        scaling["factor"],
        scaling["original_max_position_embeddings"],
        (scaling["low_freq_factor"], scaling["high_freq_factor"]),
    )
    return {}, {"rope_freqs.weight": factors}


def _long_rope(config: Config, scaling: Config, width: int) -> Scaled:
    trained = scaling["original_max_position_embeddings"]
    facts = {
        "rope.scaling.original_context_length": trained,
        "rope.scaling.attn_factor": _long_rope_scale(config, scaling, trained),
    }
    names = ("short", "long")
    return facts, {f"rope_factors_{name}.weight": scaling[f"{name}_factor"] for name in names}


def _long_rope_scale(config: Config, scaling: Config, trained: int) -> float:
    if given := scaling.get("attention_factor"):
        return float(given)
    factor = scaling.get("factor") or config["max_position_embeddings"] / trained
    return 1.0 if factor <= 1 else math.sqrt(1 + math.log(factor) / math.log(trained))


def _fixed_ntk(config: Config, scaling: Config, width: int) -> Scaled:
    """Hunyuan's, which stretches the base frequency for texts of every length."""
    if not scaling.get("alpha"):
        return {}, {}
    theta = (scaling["rope_theta"] or 10000.0) * scaling["alpha"] ** (width / (width - 2))
    return {"rope.freq_base": theta}, {}


_KINDS: dict[str, Callable[[Config, Config, int], Scaled]] = {
    "linear": _linear,
    "yarn": _yarn,
    "llama3": _llama3,
    "longrope": _long_rope,
    "su": _long_rope,
    "dynamic": _fixed_ntk,
}
