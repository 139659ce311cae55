"""Estimates of memory from a config.json, against the plans of every family."""

from typing import Any, get_args

import pytest
from support.tiny_families import CASES

from llmchat import memory_estimate
from llmchat.engines.transformers.checkpoint_names import modern_config
from llmchat.engines.transformers.families import blocks, plan_of
from llmchat.engines.transformers.families.cache_shapes import bytes_of_token, cache_shapes
from llmchat.engines.transformers.families.plan import Plan
from llmchat.settings.types import KvKind

# Heads of several sizes, several models in one config, and heads of keys that GPT-NeoX ignores.
INEXACT = ("gemma4", "llama4", "gpt-neox: odd")


def planned() -> dict[str, tuple[dict[str, Any], Plan]]:
    configs = {
        name: modern_config(case.config().to_dict())
        for name, case in CASES.items()
        if case.is_known
    }
    plans = {name: plan_of(config) for name, config in configs.items()}
    return {name: (configs[name], plan) for name, plan in plans.items() if plan is not None}


@pytest.mark.parametrize("kind", get_args(KvKind))
def test_bytes_of_a_token_are_those_of_the_cache(kind: KvKind) -> None:
    wrong = {}
    for name, (config, plan) in planned().items():
        exact = bytes_of_token(cache_shapes(plan), 2, kind)
        one, two = (memory_estimate.kv_bytes(config, tokens, kind) for tokens in (1, 2))
        if two - one != exact and not name.startswith(INEXACT):
            wrong[name] = two - one, exact
    assert not wrong


def test_experts_are_quantised_where_a_plan_describes_them() -> None:
    for name, (config, plan) in planned().items():
        has_experts = any(isinstance(block, blocks.Experts) for block in plan.blocks())
        if has_experts:
            assert config["model_type"] in memory_estimate.QUANTISED_EXPERTS, name
