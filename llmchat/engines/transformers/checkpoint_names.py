"""Translates old configs and old or nested tensor names into those of today's module trees.

The first Falcon files name classes of their own code; Bloom and GPT-2 were saved without the
prefix of the whole model; the head of GPT-NeoX has another name; a multimodal checkpoint nests its
language model. Names are translated only: no code of a checkpoint is run.
"""

import re
from typing import Any

# Families whose bodies are called `model`.
_DECODERS = (
    "apertus", "cohere", "cohere2", "ernie4_5", "exaone4", "gemma", "gemma2", "gemma3_text",
    "gemma3n_text", "gemma4_text", "gemma4_unified_text", "glm", "glm4", "granite",
    "hunyuan_v1_dense", "llama", "ministral", "ministral3", "mistral", "nemotron", "olmo2", "olmo3",
    "opt", "phi", "phi3", "qwen2", "qwen3", "seed_oss", "smollm3", "stablelm",
)  # fmt: skip
# The attribute under which a causal model keeps its body. Files saved from the body alone lack it.
_PREFIXES = {
    **dict.fromkeys(
        ("bloom", "gpt2", "gptj", "gpt_neo", "gpt_bigcode", "falcon", "mpt", "openai-gpt"),
        "transformer",
    ),
    **dict.fromkeys(_DECODERS, "model"),
    "gpt_neox": "gpt_neox",
    "rwkv": "rwkv",
}
_HEADS = ("lm_head", "head")
_WRAPPED = re.compile(r"^(?:model\.)?language_model\.(?:model\.)?(?P<rest>.+)$")
_VISION = re.compile(r"^(?:model\.)?visual\.")
# Multimodal models, and the type of their language model.
_OF_QWEN_VL = {
    "qwen2_vl": "qwen2",
    "qwen2_5_vl": "qwen2",
    "qwen3_vl": "qwen3",
    "qwen3_5": "qwen3_5_text",
    "qwen3_5_moe": "qwen3_5_moe_text",
}
_RENAMED = "_renamed"
# Families whose layers are Conv1D: their weights are [in, out].
_CONV1D = ("gpt2", "openai-gpt")


def modern_config(config: dict[str, Any]) -> dict[str, Any]:
    """A config.json with today's model type and keys.

    RefinedWebModel (Falcon 7B) and RefinedWeb (40B) become falcon; the language model of Qwen-VL
    becomes Qwen, and that of Qwen3.5 Qwen3.5 text.
    """
    if str(config.get("model_type")) in _OF_QWEN_VL:
        return _language_model_of_qwen_vl(config)
    if config.get("model_type") not in ("RefinedWeb", "RefinedWebModel"):
        return config
    large = config["model_type"] == "RefinedWeb"
    renamed = {
        "n_head": "num_attention_heads",
        "n_layer": "num_hidden_layers",
        "n_head_kv": "num_kv_heads",
    }
    kept = {
        renamed.get(key, key): value
        for key, value in config.items()
        if key not in ("auto_map", "architectures")
    }
    defaults = {
        "new_decoder_architecture": large,
        "multi_query": True,
        "parallel_attn": True,
        "alibi": False,
        "bias": False,
    }
    return defaults | kept | {"model_type": "falcon"}


def is_renamed(config: dict[str, Any]) -> bool:
    """Whether transformers would read the checkpoint's own config.json as another model than
    `config`, which is in today's words.
    """
    return config.get("model_type") == "falcon" or bool(config.get(_RENAMED))


def _language_model_of_qwen_vl(config: dict[str, Any]) -> dict[str, Any]:
    """The config of the language model. Without images its rotary embedding is the ordinary one."""
    text = config["text_config"] if isinstance(config.get("text_config"), dict) else config
    kept = {
        key: value
        for key, value in text.items()
        if key not in ("vision_config", "text_config", "architectures", "auto_map")
    }
    for key in ("rope_scaling", "rope_parameters"):
        if isinstance(kept.get(key), dict):
            kept[key] = _without_directions(kept[key])
    above = {
        key: config[key]
        for key in ("tie_word_embeddings", "quantization_config")
        if config.get(key) is not None
    }
    return kept | above | {"model_type": _OF_QWEN_VL[config["model_type"]], _RENAMED: True}


def _without_directions(scaling: dict[str, Any]) -> dict[str, Any] | None:
    kept = {key: value for key, value in scaling.items() if not key.startswith("mrope")}
    kinds = {key: "default" for key in ("type", "rope_type") if kept.get(key) == "mrope"}
    return kept | kinds


def modern_name(name: str, config: dict[str, Any]) -> str | None:
    """Today's name of a tensor or a module; None for one outside the language model."""
    wrapped = _WRAPPED.match(name)
    if wrapped or isinstance(config.get("text_config"), dict):
        rest = wrapped["rest"] if wrapped else name
        return rest if _is_head(rest) else f"model.{rest}" if wrapped else None
    if _VISION.match(name):
        return None
    if config.get("model_type") == "kimi_linear":
        return _name_in_kimi_linear(name)
    if config.get("model_type") == "nemotron_h" and name.startswith("backbone."):
        return name.replace("backbone", "model", 1)
    if config.get("model_type") == "gpt_neox" and name.startswith("embed_out"):
        return name.replace("embed_out", "lm_head", 1)
    prefix = _PREFIXES.get(str(config.get("model_type")))
    if prefix is None or name.startswith(f"{prefix}.") or _is_head(name):
        return name
    return f"{prefix}.{name}"


def _name_in_kimi_linear(name: str) -> str:
    """Published files name experts as Mixtral does, and gates as parts of the attention."""
    name = name.replace(".block_sparse_moe.", ".mlp.")
    name = re.sub(
        r"\.self_attn\.(f_[ab]_proj\.?|dt_bias$|A_log$)", r".self_attn.forget_gate.\1", name
    )
    return re.sub(r"(\.experts\.\d+\.)(w[123])\b", lambda found: found[1] + _W[found[2]], name)


_W = {"w1": "gate_proj", "w2": "down_proj", "w3": "up_proj"}


def is_transposed(module: str, config: dict[str, Any]) -> bool:
    """Whether a module's weight is [in, out], as in Conv1D, instead of [out, in]."""
    return config.get("model_type") in _CONV1D and ".h." in module


def _is_head(name: str) -> bool:
    return name.partition(".")[0] in _HEADS
