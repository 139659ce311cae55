"""What an int8 copy of a model with a plan consists of, without transformers."""

from typing import Any

import torch

from llmchat.engines.transformers.families import blocks as kinds
from llmchat.engines.transformers.families import viewed
from llmchat.engines.transformers.families.blocks import Block, Linear
from llmchat.engines.transformers.families.check import bind, linears_of
from llmchat.engines.transformers.families.names import found_in, tensor_names
from llmchat.engines.transformers.families.plan import Plan
from llmchat.engines.transformers.modules.hf_modules import Outline, plain_dtype
from llmchat.engines.transformers.tensors import Tensors

# transformers leaves linears of these in 16 bits: Falcon's are subclasses, and T5's `wo` is kept.
# It has no ChatGLM.
_OURS_ALONE = ("chatglm", "falcon", "mt5", "t5", "umt5")


def outline_of(plan: Plan, config: dict[str, Any], raw: Tensors) -> tuple[Outline, Tensors]:
    """The outline, and the tensors under the names of the plan.

    raw: under the names of the files. Raises IntegrityError if they do not fit the plan.
    """
    tensors = viewed(config, raw)
    plan = bind(plan, tensors.shapes)
    head, groups = plan.head.linear.module, _groups(plan)
    quantised = {module for group in groups for module in group}
    plain = tensor_names(plan) - {f"{module}.weight" for module in quantised}
    if plan.head.is_tied:
        plain -= {plan.head.linear.weight, plan.head.linear.bias}
    sixteen_bit = {linear.module for linear in found_in(plan, Linear)} - quantised - {head}
    is_shared = tensors.shapes.keys() == raw.shapes.keys()
    is_shared = is_shared and str(config.get("model_type")) not in _OURS_ALONE
    outline = Outline(
        groups,
        {name: _dtype(name, plan, is_shared) for name in tensors.shapes if name in plain},
        head,
        config | {"tie_word_embeddings": plan.head.is_tied},
        is_shared,
        tuple(sorted(sixteen_bit)),
    )
    return outline, tensors


def _groups(plan: Plan) -> list[list[str]]:
    """The quantised modules; those whose outputs are used side by side are a group."""
    groups: list[list[str]] = []
    for block in plan.blocks():
        groups += _groups_of(block)
    if plan.layer_inputs:
        groups.append([plan.layer_inputs.linear.module])
    seen: set[str] = set()
    for group in groups:
        group[:] = [module for module in dict.fromkeys(group) if module not in seen]
        seen.update(group)
    return [group for group in groups if group]


def _groups_of(block: Block) -> list[list[str]]:
    if isinstance(block, kinds.Experts):
        mlps = (*((block.shared,) if block.shared else ()), *block.experts)
        return [group for mlp in mlps for group in _groups_of(mlp)]
    modules = [linear.module for linear in linears_of(block)]
    if isinstance(block, kinds.Memory):
        return [modules]
    if isinstance(block, kinds.Attention | kinds.Mlp | kinds.DeltaNet):
        count = len(block.inputs)
        return [modules[:count], *([module] for module in modules[count:])]
    return [[module] for module in modules]


def _dtype(name: str, plan: Plan, is_shared: bool) -> torch.dtype:
    """Of a tensor that stays as it is: what transformers computes with in 16 bits, where it reads
    the copy too. Otherwise small tensors keep all their digits.
    """
    if is_shared:
        return torch.float32 if name in _routers(plan) else plain_dtype(name, "int8")
    tables = {plan.embedding.weight, plan.head.linear.weight}
    if plan.layer_inputs:
        tables.add(plan.layer_inputs.embedding)
    return torch.bfloat16 if name in tables else torch.float32


def _routers(plan: Plan) -> set[str]:
    """The weights of routers: with fewer digits they would choose other experts."""
    return {block.router.weight for block in plan.blocks() if isinstance(block, kinds.Experts)}
