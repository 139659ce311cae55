"""Whole models of weights in groups: the compiled forward pass against plain torch on the numbers
that the groups stand for.
"""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from support.compiled_models import (
    error,
    logits_of,
    make_adapter,
    make_config,
    make_tensors,
    needs_compiler,
    random_ids,
    torch_model,
)
from support.grouped_weights import GroupedTensors, grouped, like
from torch import Tensor

from llmchat.engines.transformers.compiled import CompiledForward
from llmchat.engines.transformers.compiled.kernels import Kernels
from llmchat.engines.transformers.executor import SequenceInput
from llmchat.engines.transformers.families import plan_of
from llmchat.engines.transformers.families.check import bind, expected_tensors, linears
from llmchat.engines.transformers.quantised.packed import pack
from llmchat.engines.transformers.quantised.types import PackedWeight

pytestmark = needs_compiler

# The form of a weight by its name; "" where it is not in groups.
# What activations of 8 bits cost.
CLOSE = 0.06
Choice = Callable[[str], str]


def every(form: str) -> Choice:
    return lambda name: form if name.endswith(("_proj.weight", "embed_tokens.weight")) else ""


def mixed(name: str) -> str:
    """As Q4_K_M, but gate and up differ, and the up of the last layer is not in groups."""
    forms = {
        "q_proj": "Q4_K", "k_proj": "Q4_0", "v_proj": "Q6_K", "o_proj": "Q5_K", "gate_proj": "Q4_K",
        "up_proj": "Q3_K", "down_proj": "Q6_K", "embed_tokens": "Q6_K", "lm_head": "Q8_0",
    }  # fmt: skip
    last = name.split(".")[-2]
    return "" if name.startswith("model.layers.1.mlp.up") else forms.get(last, "")


def tensors_of(config: dict[str, Any], choice: Choice) -> GroupedTensors:
    plain = make_tensors(config)
    state = {name: plain.get(name) for name in plain.shapes}
    torch.manual_seed(3)
    forms = {name: choice(name) for name in state}
    return GroupedTensors(
        state, {name: like(state[name], form) for name, form in forms.items() if form}
    )


@pytest.mark.parametrize(
    ("choice", "tied"),
    [
        (every("Q4_K"), True),
        (every("Q2_K"), True),
        (every("IQ4_NL"), False),
        (every("AWQ"), False),
        (mixed, True),
        (mixed, False),
    ],
    ids=["Q4_K", "Q2_K", "IQ4_NL", "AWQ", "mixed, tied", "mixed"],
)
def test_model_gives_the_logits_of_plain_torch(
    compiled: Kernels, choice: Choice, tied: bool
) -> None:
    config = make_config(tie_word_embeddings=tied)
    tensors, ids = tensors_of(config, choice), random_ids(config, 40)
    exact = logits_of(torch_model(config, tensors), ids)
    model = CompiledForward(config, tensors, compiled)
    assert error(logits_of(model, ids), exact) < CLOSE
    pieces = model.new_cache()
    parts = [
        model.run([SequenceInput(pieces, ids[start:end], all_logits=True)])[0]
        for start, end in ((0, 1), (1, 4), (4, 12), (12, 40))
    ]
    assert torch.equal(torch.cat(parts), logits_of(model, ids))


def test_embedding_in_groups_has_no_second_copy(compiled: Kernels) -> None:
    config = make_config(tie_word_embeddings=True)
    model = CompiledForward(config, tensors_of(config, every("Q6_K")), compiled)
    assert model._model.embedding is None
    assert model._model.tokens.weight == model._model.head.weight


def test_live_adapter_is_added_to_grouped_weights(compiled: Kernels) -> None:
    config = make_config()
    tensors, ids = tensors_of(config, mixed), random_ids(config, 40)
    adapter = make_adapter(config, 4, 3)
    merged = {name: tensors.get(name) for name in tensors.shapes}
    for name, (a, b, scale) in adapter.modules.items():
        merged[f"{name}.weight"] = merged[f"{name}.weight"] + scale * b.float() @ a.float()
    expected = logits_of(torch_model(config, GroupedTensors(merged, {})), ids)
    model = CompiledForward(config, tensors, compiled)
    assert error(logits_of(model, ids, adapters=((adapter, 1.0),)), expected) < CLOSE
    assert error(logits_of(model, ids), expected) > 0.1


@pytest.mark.parametrize("alike", [True, False], ids=["one order", "two orders"])
def test_columns_in_another_order(compiled: Kernels, alike: bool) -> None:
    """Of one block's inputs the orders are the same, or they cannot be in groups."""
    config = make_config()
    plain = make_tensors(config)
    state, orders = {name: plain.get(name) for name in plain.shapes}, {}
    weights = {}
    for name, weight in state.items():
        if name.endswith("_proj.weight"):
            size, part = weight.shape[1], name.split(".")[3 if alike or "gate" in name else 4]
            key = f"{part} {size} {'o_proj' in name or 'down' in name}"
            order = orders.setdefault(key, torch.randperm(size))
            weights[name] = like(weight, "AWQ", order)
    tensors, ids = GroupedTensors(state, weights), random_ids(config, 30)
    exact = logits_of(torch_model(config, tensors), ids)
    model = CompiledForward(config, tensors, compiled)
    assert error(logits_of(model, ids), exact) < CLOSE
    first = logits_of(model, ids[:1])
    assert torch.equal(first, logits_of(model, ids)[:1])
    assert bool(model._model.block[0].linear) and _is_grouped(model, 0) == alike


def _is_grouped(model: CompiledForward, block: int) -> bool:
    from llmchat.engines.transformers.compiled.structs import Matrix

    address = model._model.block[block].linear
    return Matrix.from_address(address).grouping is not None


class PreparedTensors(GroupedTensors):
    """Weights in the layout of the compiled step, as a prepared copy has them."""

    def packed(self, name: str) -> PackedWeight | None:
        return pack(self.weights[name]) if name in self.weights else None

    def grouped(self, name: str) -> None:
        assert name not in self.weights, "a prepared weight is not packed again"


def test_prepared_weights_are_used_as_they_are(compiled: Kernels) -> None:
    config = make_config()
    tensors, ids = tensors_of(config, every("Q4_K")), random_ids(config, 12)
    prepared = PreparedTensors(
        {name: tensors.get(name) for name in tensors.shapes}, tensors.weights
    )
    first, second = (CompiledForward(config, one, compiled) for one in (tensors, prepared))
    assert torch.equal(logits_of(first, ids), logits_of(second, ids))


@pytest.mark.parametrize("form", ["Q4_K", "MXFP4", "Q8_0"])
def test_experts_in_groups_give_the_logits_of_plain_torch(compiled: Kernels, form: str) -> None:
    config = {
        "model_type": "qwen2_moe", "vocab_size": 97, "hidden_size": 64, "num_hidden_layers": 2,
        "max_position_embeddings": 512, "num_attention_heads": 4, "num_key_value_heads": 2,
        "head_dim": 16, "num_experts": 5, "num_experts_per_tok": 2, "intermediate_size": 96,
        "moe_intermediate_size": 48, "shared_expert_intermediate_size": 80, "hidden_act": "silu",
        "tie_word_embeddings": False,
    }  # fmt: skip
    plan = plan_of(config)
    assert plan is not None
    torch.manual_seed(5)
    state: dict[str, Tensor] = {}
    for name, shape in expected_tensors(plan):
        state[name] = torch.randn(shape) / shape[-1] ** 0.5 if len(shape) > 1 else torch.ones(shape)
    named = {
        linear.weight
        for linear in linears(bind(plan, {n: tuple(t.shape) for n, t in state.items()}))
    }
    weights = {name: like(state[name], form) for name in sorted(named)}
    tensors, ids = GroupedTensors(state, weights), random_ids(config, 30)
    exact = logits_of(torch_model(config, tensors), ids)
    model = CompiledForward(config, tensors, compiled)
    got = logits_of(model, ids)
    # A token whose experts differ because two scores are nearly equal has other logits.
    differences = [error(one, other) for one, other in zip(got, exact, strict=True)]
    assert sorted(differences)[len(differences) // 2] < CLOSE
    assert torch.equal(logits_of(model, ids[:1]), got[:1])


def test_weight_without_a_layout_is_quantised_by_rows(compiled: Kernels) -> None:
    config = make_config()
    plain = make_tensors(config)
    state = {name: plain.get(name) for name in plain.shapes}
    name = "model.layers.0.mlp.down_proj.weight"
    odd = grouped((64, 96), 4, 24, 24, zero=8)
    tensors, ids = GroupedTensors(state, {name: odd}), random_ids(config, 20)
    exact = logits_of(torch_model(config, tensors), ids)
    assert error(logits_of(CompiledForward(config, tensors, compiled), ids), exact) < CLOSE
