"""The families that have a plan: one file each, found by the model type of a config.json.

A file has `plan(config)`, which returns None for a variant that the blocks cannot express, and
raises Mismatch for an invalid config. It may have `views(config, shapes)`: linears that lie in
other tensors, see views.py.
"""

from importlib import import_module
from typing import Any

from llmchat.engines.transformers.bitsandbytes_format import is_int8
from llmchat.engines.transformers.families.config_values import Config
from llmchat.engines.transformers.families.plan import Plan

# Model type → the module of its family.
_MODULES = {
    "llama": "llama",
    "mistral": "llama",
    "qwen2": "llama",
}


def plan_of(config: Config) -> Plan | None:
    """The plan of a model; None for one that runs on transformers' modules.

    Raises Mismatch for an invalid config of a family that has plans.
    """
    module = _module_of(config)
    if module is None or ("quantization_config" in config and not is_int8(dict(config))):
        return None
    plan: Plan | None = module.plan(config)
    return plan


def has_plan(config: Config) -> bool:
    return plan_of(config) is not None


def _module_of(config: Config) -> Any:
    name = _MODULES.get(str(config.get("model_type")))
    return import_module(f"{__name__}.{name}") if name else None
