"""The config.json of a GGUF file: llama.cpp's keys in the words of the model's own checkpoint.

Keys and their meaning: gguf-py's constants.py and llama.cpp's converters (conversion/*.py).
"""

import math
import struct
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from llmchat.gguf_file.header import GgufHeader

Facts = Mapping[str, Any]
# Name of a tensor → its numbers; for frequencies, which are tensors of float32.
Numbers = Callable[[str], list[float]]

COMMON = {
    "block_count": "num_hidden_layers",
    "context_length": "max_position_embeddings",
    "embedding_length": "hidden_size",
    "feed_forward_length": "intermediate_size",
    "attention.head_count": "num_attention_heads",
    "attention.head_count_kv": "num_key_value_heads",
    "attention.key_length": "head_dim",
    "attention.layer_norm_rms_epsilon": "rms_norm_eps",
    "attention.layer_norm_epsilon": "layer_norm_eps",
}
_MOE = {
    "expert_count": "num_experts",
    "expert_used_count": "num_experts_per_tok",
    "expert_feed_forward_length": "moe_intermediate_size",
}
_LOCAL_MOE = {"expert_count": "num_local_experts", "expert_used_count": "num_experts_per_tok"}
_GRANITE = {
    "embedding_scale": "embedding_multiplier",
    "residual_scale": "residual_multiplier",
    "attention.scale": "attention_multiplier",
    "logit_scale": "logits_scaling",
}
_SOFTCAPS = {
    "attn_logit_softcapping": "attn_logit_softcapping",
    "final_logit_softcapping": "final_logit_softcapping",
}
_WINDOW = {"attention.sliding_window": "sliding_window"}
_GROUPED_MOE = {
    "expert_count": "n_routed_experts",
    "expert_used_count": "num_experts_per_tok",
    "expert_feed_forward_length": "moe_intermediate_size",
    "expert_shared_count": "n_shared_experts",
    "expert_group_count": "n_group",
    "expert_group_used_count": "topk_group",
    "expert_weights_scale": "routed_scaling_factor",
    "expert_weights_norm": "norm_topk_prob",
    "leading_dense_block_count": "first_k_dense_replace",
}
_ERNIE_MOE = {
    "expert_count": "moe_num_experts",
    "expert_used_count": "moe_k",
    "expert_feed_forward_length": "moe_intermediate_size",
    "expert_shared_count": "moe_num_shared_experts",
    "leading_dense_block_count": "moe_layer_start_index",
    "interleave_moe_layer_step": "moe_layer_interval",
}
_CONVOLUTIONS = {
    "attention.layer_norm_rms_epsilon": "norm_eps",
    "shortconv.l_cache": "conv_L_cache",
    "leading_dense_block_count": "num_dense_layers",
}
_SHARED = {"expert_shared_feed_forward_length": "shared_expert_intermediate_size"}


class Architecture(NamedTuple):
    """What is particular to an architecture of llama.cpp. keys: besides the common ones."""

    model_type: str
    keys: Mapping[str, str] = {}
    fixed: Mapping[str, Any] = {}


ARCHITECTURES = {
    "cohere2": Architecture("cohere2", {"logit_scale": "logit_scale", **_WINDOW}),
    "command-r": Architecture("cohere", {"logit_scale": "logit_scale"}),
    "ernie4_5": Architecture("ernie4_5"),
    "ernie4_5-moe": Architecture("ernie4_5_moe", _ERNIE_MOE),
    "exaone4": Architecture("exaone4", _WINDOW),
    "gemma": Architecture("gemma"),
    "gemma2": Architecture("gemma2", _SOFTCAPS | _WINDOW),
    "gemma3": Architecture("gemma3_text", _SOFTCAPS | _WINDOW),
    "glm4": Architecture("glm4"),
    "glm4moe": Architecture("glm4_moe", _GROUPED_MOE),
    "gpt-oss": Architecture("gpt_oss", _LOCAL_MOE | _WINDOW),
    "granite": Architecture("granite", _GRANITE),
    "granitemoe": Architecture("granitemoe", _GRANITE | _LOCAL_MOE),
    "hunyuan-dense": Architecture("hunyuan_v1_dense"),
    "lfm2": Architecture("lfm2", _CONVOLUTIONS, {"block_auto_adjust_ff_dim": False}),
    "lfm2moe": Architecture("lfm2_moe", {**_CONVOLUTIONS, **_MOE}, {"norm_topk_prob": True}),
    "llama": Architecture("llama", _LOCAL_MOE),
    "nemotron": Architecture("nemotron", {"attention.layer_norm_epsilon": "norm_eps"}),
    "olmo2": Architecture("olmo2", _WINDOW),
    "olmoe": Architecture("olmoe", _MOE),
    "phi3": Architecture("phi3", _WINDOW),
    "qwen2": Architecture("qwen2"),
    "qwen2moe": Architecture("qwen2_moe", _MOE | _SHARED, {"norm_topk_prob": False}),
    "qwen3": Architecture("qwen3"),
    "qwen3moe": Architecture("qwen3_moe", _MOE, {"norm_topk_prob": True}),
    "seed_oss": Architecture("seed_oss"),
    "smollm3": Architecture("smollm3"),
    "stablelm": Architecture("stablelm", {"use_parallel_residual": "use_parallel_residual"}),
    "starcoder2": Architecture("starcoder2", {"attention.layer_norm_epsilon": "norm_epsilon"}),
}
_ENDS = ("eos", "eot", "eom")
# What ends an answer whatever the file names, as in llama.cpp.
_END_MARKS = ("<|endoftext|>", "<|end_of_text|>", "<|eot_id|>", "<|im_end|>", "<end_of_turn>")
_CONTROL = 3


def config_of(header: GgufHeader, numbers: Numbers | None = None) -> dict[str, Any] | None:
    """The config of a model; None for an architecture that is not known here.

    numbers: reads a tensor of rotary factors; without it, as before a download, they are left out.
    """
    facts = header.facts
    arch = str(facts.get("general.architecture"))
    known = ARCHITECTURES.get(arch)
    if known is None:
        return None
    names = {**COMMON, **known.keys}
    own = {name.removeprefix(f"{arch}."): value for name, value in facts.items()}
    found = {ours: _plain(own[theirs]) for theirs, ours in names.items() if theirs in own}
    config = {"model_type": known.model_type, **known.fixed, **found, **_tokens(header)}
    rope = _rope(own, config, header, numbers)
    config |= {"rope_theta": _plain(own.get("rope.freq_base", 10000.0))}
    config |= {"rope_scaling": rope} if rope else {}
    if arch in _PARTICULARS:
        config |= _PARTICULARS[arch](own, config, header)
    return config


def _tokens(header: GgufHeader) -> dict[str, Any]:
    facts, tensors = header.facts, header.tensors
    found: dict[str, Any] = {
        "eos_token_id": _end_ids(facts),
        "tie_word_embeddings": "output.weight" not in tensors,
    }
    for name, key in (("bos_token_id", "bos"), ("pad_token_id", "padding")):
        number = facts.get(f"tokenizer.ggml.{key}_token_id")
        found |= {name: number} if type(number) is int else {}
    if "token_embd.weight" in tensors:
        found["vocab_size"] = tensors["token_embd.weight"].shape[0]
    return found


def _end_ids(facts: Facts) -> list[int]:
    """The end tokens that the file names, then those that are one by their text."""
    named = [facts.get(f"tokenizer.ggml.{name}_token_id") for name in _ENDS]
    tokens, kinds = facts.get("tokenizer.ggml.tokens"), facts.get("tokenizer.ggml.token_type")
    if isinstance(tokens, list) and isinstance(kinds, list):
        marks = [tokens.index(mark) for mark in _END_MARKS if mark in tokens]
        named += [number for number in marks if kinds[number : number + 1] == [_CONTROL]]
    return list(dict.fromkeys(end for end in named if type(end) is int and end >= 0))


def _plain(value: Any) -> Any:
    """A number of 32 bits as its shortest decimal; a list of equal numbers as one."""
    if isinstance(value, list) and value and all(one == value[0] for one in value):
        return _plain(value[0])
    if not isinstance(value, float):
        return value
    short = float(f"{value:.7g}")
    return short if struct.pack("<f", short) == struct.pack("<f", value) else value


def _rope(
    own: Facts, config: dict[str, Any], header: GgufHeader, numbers: Numbers | None
) -> dict[str, Any]:
    """rope_scaling in the words of transformers; {} for none."""
    kind, factor = own.get("rope.scaling.type"), _plain(own.get("rope.scaling.factor"))
    trained = own.get("rope.scaling.original_context_length")
    if "rope_factors_long.weight" in header.tensors:
        return _long_rope(own, config, numbers)
    if "rope_freqs.weight" in header.tensors:
        return _frequency_factors(own, config, numbers) if numbers else {}
    if kind == "linear" and factor:
        return {"rope_type": "linear", "factor": factor}
    if kind != "yarn" or not factor:
        return {}
    named = {
        "beta_fast": "yarn_beta_fast", "beta_slow": "yarn_beta_slow",
        "attention_factor": "yarn_attn_factor",
    }  # fmt: skip
    given = {
        ours: _plain(own[f"rope.scaling.{theirs}"])
        for ours, theirs in named.items()
        if f"rope.scaling.{theirs}" in own
    }
    return {
        "rope_type": "yarn", "factor": factor, "original_max_position_embeddings": trained, **given,
    }  # fmt: skip


def _long_rope(own: Facts, config: dict[str, Any], numbers: Numbers | None) -> dict[str, Any]:
    short, long = (
        [_plain(value) for value in numbers(f"rope_factors_{name}.weight")] if numbers else []
        for name in ("short", "long")
    )
    return {
        "rope_type": "longrope",
        "short_factor": short,
        "long_factor": long,
        "attention_factor": _plain(own.get("rope.scaling.attn_factor")),
        "original_max_position_embeddings": own.get("rope.scaling.original_context_length"),
    }


def _frequency_factors(own: Facts, config: dict[str, Any], numbers: Numbers) -> dict[str, Any]:
    """Llama 3's scaling, whose parameters are not in the file: only what they make of each
    frequency. The published ones are tried; others become factors of each frequency.
    """
    factors = numbers("rope_freqs.weight")
    theta = float(own.get("rope.freq_base", 10000.0))
    largest = _plain(max(factors, default=1.0))
    for trained in (8192, 4096, 2048, 1024, 512, 256, 128, 64):
        if _same(llama3_factors(theta, len(factors), largest, trained), factors):
            return {
                "rope_type": "llama3", "factor": largest, "low_freq_factor": 1.0,
                "high_freq_factor": 4.0, "original_max_position_embeddings": trained,
            }  # fmt: skip
    return {
        "rope_type": "longrope", "short_factor": factors, "long_factor": factors,
        "attention_factor": 1.0,
        "original_max_position_embeddings": config.get("max_position_embeddings"),
    }  # fmt: skip


def llama3_factors(
    theta: float, count: int, factor: float, trained: int, ends: tuple[float, float] = (1.0, 4.0)
) -> list[float]:
    """What divides each frequency in Llama 3's scaling. ends: the low and the high factor."""
    (low, high), found = ends, []
    for index in range(count):
        wavelength = 2 * math.pi * theta ** (index / count)
        blend = min(1.0, max(0.0, (trained / wavelength - low) / (high - low)))
        found.append(1.0 / (blend + (1.0 - blend) / factor))
    return found


def _same(ours: list[float], theirs: list[float]) -> bool:
    return all(
        math.isclose(one, other, rel_tol=1e-4) for one, other in zip(ours, theirs, strict=True)
    )


def _rotary_part(own: Facts, config: dict[str, Any], header: GgufHeader) -> dict[str, Any]:
    """Which part of a head is turned."""
    turned = own.get("rope.dimension_count")
    width = config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]
    return {"partial_rotary_factor": turned / width} if turned else {}


def _of_llama(own: Facts, config: dict[str, Any], header: GgufHeader) -> dict[str, Any]:
    if config.get("num_local_experts"):
        return {"model_type": "mixtral"}
    return {"num_local_experts": None}


def _of_gemma3(own: Facts, config: dict[str, Any], header: GgufHeader) -> dict[str, Any]:
    """Every sixth layer sees everything; the others have a window, and turn by 10,000."""
    width, theta = config.get("head_dim", 256), config.pop("rope_theta")
    scale = {} if config["num_hidden_layers"] != 62 else {"query_pre_attn_scalar": 168}
    return {
        "rope_theta": theta,
        "rope_local_base_freq": _plain(own.get("rope.freq_base_swa", 10000.0)),
        "query_pre_attn_scalar": width,
        "layer_types": _every(config["num_hidden_layers"], 6),
        **scale,
    }


def _of_gemma2(own: Facts, config: dict[str, Any], header: GgufHeader) -> dict[str, Any]:
    """The 27B model alone scales by the width of its residual stream."""
    hidden, heads = config["hidden_size"], config["num_attention_heads"]
    is_27b = config["num_hidden_layers"] == 46
    scalar = hidden // heads if is_27b else config.get("head_dim", 256)
    return {"query_pre_attn_scalar": scalar, "layer_types": _every(config["num_hidden_layers"], 2)}


def _every(layers: int, nth: int) -> list[str]:
    kinds = ("full_attention", "sliding_attention")
    return [kinds[(index + 1) % nth != 0] for index in range(layers)]


def _of_windows(own: Facts, config: dict[str, Any], header: GgufHeader) -> dict[str, Any]:
    """Kinds of layers by the file's pattern: a number, or one flag a layer."""
    if not config.get("sliding_window"):
        return {"sliding_window": None}
    pattern = own.get("attention.sliding_window_pattern", 4)
    layers = config["num_hidden_layers"]
    if isinstance(pattern, list):
        kinds = ["sliding_attention" if slides else "full_attention" for slides in pattern]
        return {"layer_types": kinds[:layers]}
    return {"layer_types": _every(layers, int(pattern) or 1)}


def _of_phi3(own: Facts, config: dict[str, Any], header: GgufHeader) -> dict[str, Any]:
    window = config.get("sliding_window") or None
    trained = own.get("rope.scaling.original_context_length")
    lengths = {"original_max_position_embeddings": trained} if trained else {}
    return {"sliding_window": window, **lengths, **_rotary_part(own, config, header)}


def _of_stablelm(own: Facts, config: dict[str, Any], header: GgufHeader) -> dict[str, Any]:
    has_norms = "blk.0.attn_q_norm.weight" in header.tensors
    return {"qk_layernorm": has_norms, **_rotary_part(own, config, header)}


def _of_olmo2(own: Facts, config: dict[str, Any], header: GgufHeader) -> dict[str, Any]:
    """Olmo 3 has windows, and stretches positions only in the layers without one."""
    if not config.get("sliding_window"):
        return {"sliding_window": None}
    theta = {"rope_theta": config["rope_theta"]}
    kinds = {
        "full_attention": (config.pop("rope_scaling", None) or {"rope_type": "default"}) | theta,
        "sliding_attention": {"rope_type": "default", **theta},
    }
    windows = _of_windows(own, config, header)
    return {"model_type": "olmo3", "rope_parameters": kinds, **windows}


def _of_gpt_oss(own: Facts, config: dict[str, Any], header: GgufHeader) -> dict[str, Any]:
    scaling = config.get("rope_scaling")
    found = {"rope_scaling": scaling | {"truncate": False}} if scaling else {}
    return found | {"layer_types": _every(config["num_hidden_layers"], 2)}


def _of_glm4_moe(own: Facts, config: dict[str, Any], header: GgufHeader) -> dict[str, Any]:
    """Its last layers guess further tokens, which a chat leaves out."""
    return {
        "num_hidden_layers": config["num_hidden_layers"] - int(own.get("nextn_predict_layers", 0)),
        "use_qk_norm": "blk.0.attn_q_norm.weight" in header.tensors,
        **_rotary_part(own, config, header),
    }


def _of_ernie_moe(own: Facts, config: dict[str, Any], header: GgufHeader) -> dict[str, Any]:
    return {"moe_layer_end_index": config["num_hidden_layers"] - 1}


def _of_lfm2(own: Facts, config: dict[str, Any], header: GgufHeader) -> dict[str, Any]:
    """Layers without heads for keys are convolutions."""
    heads = own.get("attention.head_count_kv")
    heads = heads if isinstance(heads, list) else [heads] * config["num_hidden_layers"]
    kinds = ["full_attention" if count else "conv" for count in heads]
    return {"num_key_value_heads": max(heads, default=0), "layer_types": kinds}


def _of_cohere(own: Facts, config: dict[str, Any], header: GgufHeader) -> dict[str, Any]:
    return {"use_qk_norm": "blk.0.attn_q_norm.weight" in header.tensors}


_PARTICULARS: dict[str, Callable[[Facts, dict[str, Any], GgufHeader], dict[str, Any]]] = {
    "cohere2": _of_windows,
    "command-r": _of_cohere,
    "ernie4_5-moe": _of_ernie_moe,
    "exaone4": _of_windows,
    "gemma2": _of_gemma2,
    "gemma3": _of_gemma3,
    "glm4": _rotary_part,
    "glm4moe": _of_glm4_moe,
    "gpt-oss": _of_gpt_oss,
    "lfm2": _of_lfm2,
    "lfm2moe": _of_lfm2,
    "llama": _of_llama,
    "nemotron": _rotary_part,
    "olmo2": _of_olmo2,
    "phi3": _of_phi3,
    "stablelm": _of_stablelm,
}
