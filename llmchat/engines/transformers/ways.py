"""Which executor would run a checkpoint: by its config.json alone, as `loading` chooses."""

from typing import Any, Literal

import torch

from llmchat.engines.transformers import compiled
from llmchat.engines.transformers.checkpoint_names import modern_config
from llmchat.engines.transformers.compiled.build import can_build
from llmchat.engines.transformers.families import plan_of
from llmchat.engines.transformers.pytorch import cuda, forward
from llmchat.settings.types import Weights

Way = Literal["compiled", "cuda", "torch", "modules"]


def way_of(config: dict[str, Any], weights: Weights, device: torch.device) -> Way:
    """The executor on this machine. Raises Mismatch for an invalid config."""
    config = modern_config(config)
    plan = plan_of(config)
    if plan is None:
        return "modules"
    if weights in _COMPILED and device.type == "cpu" and can_build() and compiled.supports(config):
        return "compiled"
    if not forward.supports(plan):
        return "modules"
    is_cuda = not plan.encoder and weights != "fp32" and cuda.usable(device)
    return "cuda" if is_cuda and cuda.is_plain(plan) else "torch"


_COMPILED = ("int8", "int4")
