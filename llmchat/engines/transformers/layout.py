"""How checkpoints spell the same thing: old configs and old or wrapped tensor names, told as today's module trees call them.

The first Falcon files name classes that only their own code knows; Bloom and GPT-2 were saved without the prefix of the whole model; the head of
GPT-NeoX had a name of its own; the language model of a multimodal checkpoint stands under a name of its own. All of it is renaming: no code of a checkpoint is run.
"""

import re
from typing import Any

# The attribute under which a causal model keeps its body. Files saved from the body alone lack it.
_PREFIXES = {
    **dict.fromkeys(("bloom", "gpt2", "gptj", "gpt_neo", "gpt_bigcode", "falcon", "mpt", "openai-gpt"), "transformer"),
    **dict.fromkeys(("llama", "mistral", "qwen2", "qwen3", "gemma", "gemma2", "gemma3_text", "phi3", "smollm3", "stablelm"), "model"),
    "gpt_neox": "gpt_neox",
    "rwkv": "rwkv",
}
_HEADS = ("lm_head", "head")
_WRAPPED = re.compile(r"^(?:model\.)?language_model\.(?:model\.)?(?P<rest>.+)$")
# Families whose layers are Conv1D: their weights are [in, out].
_CONV1D = ("gpt2", "openai-gpt")


def modern_config(config: dict[str, Any]) -> dict[str, Any]:
    """The config with today's name and keys: what was RefinedWebModel (Falcon 7B) or RefinedWeb (40B) is falcon."""
    if config.get("model_type") not in ("RefinedWeb", "RefinedWebModel"):
        return config
    large = config["model_type"] == "RefinedWeb"
    renamed = {"n_head": "num_attention_heads", "n_layer": "num_hidden_layers", "n_head_kv": "num_kv_heads"}
    kept = {renamed.get(key, key): value for key, value in config.items() if key not in ("auto_map", "architectures")}
    defaults = {"new_decoder_architecture": large, "multi_query": True, "parallel_attn": True, "alibi": False, "bias": False}
    return defaults | kept | {"model_type": "falcon"}


def modern_name(name: str, config: dict[str, Any]) -> str | None:
    """What today's module tree calls a tensor or a module of these files; None for what is no part of the language model."""
    if isinstance(config.get("text_config"), dict):
        match = _WRAPPED.match(name)
        rest = match["rest"] if match else name
        return rest if _is_head(rest) else f"model.{rest}" if match else None
    if config.get("model_type") == "gpt_neox" and name.startswith("embed_out"):
        return name.replace("embed_out", "lm_head", 1)
    prefix = _PREFIXES.get(str(config.get("model_type")))
    return name if prefix is None or name.startswith(f"{prefix}.") or _is_head(name) else f"{prefix}.{name}"


def is_transposed(module: str, config: dict[str, Any]) -> bool:
    """Whether a module's weight is [in, out], as in Conv1D, rather than a linear layer's [out, in]."""
    return config.get("model_type") in _CONV1D and ".h." in module


def _is_head(name: str) -> bool:
    return name.partition(".")[0] in _HEADS
