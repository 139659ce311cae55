"""The families that have a plan: one file each, found by the model type of a config.json.

A file has `plan(config)`, which returns None (or raises NoPlan) for a variant that the blocks
cannot express, and raises Mismatch for an invalid config. It may have `views(config)`: tensors that
a checkpoint can keep inside others, see views.py.
"""

from importlib import import_module
from typing import Any

from llmchat.engines.transformers.families.config_values import Config, NoPlan, check_counts
from llmchat.engines.transformers.families.plan import Plan
from llmchat.engines.transformers.families.views import ViewedTensors
from llmchat.engines.transformers.tensors import Tensors

# Model type → the module of its family.
MODULES = {
    "apertus": "apertus",
    "arcee": "llama",
    "bloom": "bloom",
    "chatglm": "chatglm",
    "cohere": "cohere",
    "cohere2": "cohere",
    "deepseek_v2": "deepseek",
    "deepseek_v3": "deepseek",
    "ernie4_5": "ernie4_5",
    "ernie4_5_moe": "ernie4_5_moe",
    "exaone4": "exaone4",
    "falcon": "falcon",
    "falcon_h1": "falcon_h1",
    "gemma": "gemma",
    "gemma2": "gemma",
    "gemma3_text": "gemma",
    "gemma3n_text": "gemma3n",
    "gemma4_text": "gemma4",
    "gemma4_unified_text": "gemma4",
    "glm": "glm",
    "glm4": "glm",
    "glm4_moe": "glm4_moe",
    "glm4_moe_lite": "deepseek",
    "gpt2": "gpt2",
    "gpt_bigcode": "gpt2",
    "gpt_neo": "gpt_neo",
    "gpt_neox": "gpt_neox",
    "gpt_oss": "gpt_oss",
    "gptj": "gptj",
    "granite": "granite",
    "granitemoe": "granite_moe",
    "granitemoehybrid": "granite_hybrid",
    "granitemoeshared": "granite_moe",
    "hunyuan_v1_dense": "hunyuan",
    "hunyuan_v1_moe": "hunyuan_moe",
    "kimi_linear": "kimi_linear",
    "lfm2": "lfm2",
    "lfm2_moe": "lfm2",
    "llama": "llama",
    "llama4": "llama4",
    "llama4_text": "llama4",
    "ministral": "llama",
    "ministral3": "ministral3",
    "mistral": "llama",
    "mixtral": "mixtral",
    "mpt": "mpt",
    "mt5": "t5",
    "nemotron": "nemotron",
    "nemotron_h": "nemotron_h",
    "olmo": "olmo",
    "olmo2": "olmo2",
    "olmo3": "olmo2",
    "olmoe": "olmoe",
    "opt": "opt",
    "phi": "phi",
    "phi3": "phi3",
    "qwen2": "llama",
    "qwen3": "qwen3",
    "qwen3_5_moe_text": "qwen_next",
    "qwen3_5_text": "qwen_next",
    "qwen2_moe": "qwen3_moe",
    "qwen3_moe": "qwen3_moe",
    "qwen3_next": "qwen_next",
    "rwkv": "rwkv",
    "rwkv7": "rwkv7",
    "seed_oss": "llama",
    "smollm3": "smollm3",
    "stablelm": "stablelm",
    "starcoder2": "starcoder2",
    "t5": "t5",
    "umt5": "t5",
}

# Multimodal models whose text is read as by a model without images → its model type, unless the
# config of the text has one.
_TEXTS = {
    "gemma3": "gemma3_text",
    "gemma3n": "gemma3n_text",
    "gemma4": "gemma4_text",
    "gemma4_unified": "gemma4_unified_text",
    "mistral3": "mistral",
}


def plan_of(config: Config) -> Plan | None:
    """The plan of a model; None for one that runs on transformers' modules.

    Raises Mismatch for an invalid config of a family that has plans.
    """
    config = language_model(config)
    module = _module_of(config)
    if module is None:
        return None
    check_counts(config)
    try:
        plan: Plan | None = module.plan(config)
    except NoPlan:
        return None
    return plan


def has_plan(config: Config) -> bool:
    return plan_of(config) is not None


def viewed(config: Config, tensors: Tensors) -> Tensors:
    """The tensors under the names of the plan: parts of stacked ones get names of their own.

    Tensors that are viewed already stay as they are: a matrix is turned once.
    """
    if isinstance(tensors, ViewedTensors):
        return tensors
    config = language_model(config)
    module = _module_of(config)
    every = module.views(config) if hasattr(module, "views") else []
    shapes = tensors.shapes.keys()
    views = {name: view for name, view in every if shapes >= set(view.sources)}
    return ViewedTensors(tensors, views) if views else tensors


def language_model(config: Config) -> Config:
    """The config of the text of a multimodal model, with the outer one's quantisation.

    An outer config that ties head and embedding says less than the text's (Mistral Small 3.1).
    """
    text, kind = config.get("text_config"), str(config.get("model_type"))
    if kind not in _TEXTS or not isinstance(text, dict):
        return config
    outer = {name: config[name] for name in ("quantization_config",) if name in config}
    if config.get("tie_word_embeddings") is False:
        outer["tie_word_embeddings"] = False
    return {"model_type": _TEXTS[kind], **text, **outer}


def _module_of(config: Config) -> Any:
    name = MODULES.get(str(config.get("model_type")))
    return import_module(f"{__name__}.{name}") if name else None
