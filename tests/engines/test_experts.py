"""Mixtures of experts: which experts are chosen, where checkpoints keep them, and the compiled step
against torch.
"""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from support.compiled_models import needs_compiler
from torch import Tensor

from llmchat.engines.transformers.compiled import CompiledForward
from llmchat.engines.transformers.compiled.kernels import Kernels
from llmchat.engines.transformers.executor import SequenceInput
from llmchat.engines.transformers.families import plan_of
from llmchat.engines.transformers.families.blocks import Experts, Linear, Mlp
from llmchat.engines.transformers.families.check import bind, expected_tensors
from llmchat.engines.transformers.families.expert_parts import Stack, routed
from llmchat.engines.transformers.families.views import View
from llmchat.engines.transformers.pytorch.experts import choose, run_chosen
from llmchat.engines.transformers.pytorch.forward import TorchForward
from llmchat.engines.transformers.weights import MemoryTensors
from llmchat.errors import IntegrityError, Mismatch

BLOCK = Experts(Linear("gate", 4, 8), (Mlp((), Linear("down", 8, 8), "silu"),) * 4, top=2)
LOGITS = torch.tensor([[0.0, 2.0, 1.0, -1.0]])


def chosen(block: Experts, *rest: Tensor | None) -> tuple[list[int], list[float]]:
    experts, weights = choose(block, LOGITS, *rest)
    return experts[0].tolist(), weights[0].tolist()


def test_weights_are_softmax_of_all_experts() -> None:
    probabilities = LOGITS.softmax(-1)[0]
    experts, weights = chosen(BLOCK)
    assert experts == [1, 2]
    assert weights == pytest.approx(probabilities[[1, 2]].tolist())


def test_weights_are_normalised_and_scaled() -> None:
    _, weights = chosen(replace(BLOCK, normalised=True, factor=3.0))
    assert weights == pytest.approx((3 * torch.tensor([2.0, 1.0]).softmax(-1)).tolist())
    _, of_top = chosen(replace(BLOCK, score="softmax_of_top"), None, torch.full((4,), 3.0))
    assert of_top == pytest.approx(weights)


def test_a_correction_changes_the_choice_but_no_weight() -> None:
    correction = torch.tensor([[0.0, -1.0, 0.0, 1.0]])
    experts, weights = chosen(replace(BLOCK, score="sigmoid"), correction)
    assert experts == [3, 2]
    assert weights == pytest.approx(LOGITS.sigmoid()[0, [3, 2]].tolist())


@pytest.mark.parametrize(("members", "expected"), [(1, [1, 0]), (2, [1, 0])])
def test_experts_of_the_best_group_are_chosen(members: int, expected: list[int]) -> None:
    block = replace(BLOCK, groups=2, top_groups=1, group_members=members)
    assert chosen(block)[0] == expected


def test_equal_scores_of_large_logits_do_not_decide() -> None:
    experts, _ = choose(replace(BLOCK, score="sigmoid", top=1), torch.tensor([[40.0, 50, 45, 0]]))
    assert experts.tolist() == [[1]]


def test_the_sum_is_taken_in_the_order_of_the_choice() -> None:
    x = torch.randn(5, 8)
    experts = torch.tensor([[3, 1], [1, 3], [0, 2], [2, 1], [1, 0]])
    weights = torch.rand(5, 2)
    out = run_chosen(BLOCK, x, experts, weights, lambda number, rows: rows * number)
    torch.testing.assert_close(out, x * (experts * weights).sum(1, keepdim=True))
    of_input = replace(BLOCK, weights_input=True)
    out = run_chosen(of_input, x, experts, weights, lambda number, rows: rows**2 * number)
    torch.testing.assert_close(out, x**2 * (experts * weights**2).sum(1, keepdim=True))


def test_an_impossible_choice_is_invalid() -> None:
    with pytest.raises(Mismatch, match="cannot choose 3 of 4 experts in 1 of 2 groups"):
        routed({"hidden_size": 8}, "gate", BLOCK.experts, 3, groups=2)


def test_stacked_experts_have_names_of_their_own() -> None:
    stack = Stack("gate_up", "down", "gate_up_bias", is_transposed=True, interleaved=True)
    views = dict(stack.views("m.", "e.", 2, inner=3))
    gate_up, bias = torch.randn(2, 5, 6), torch.randn(2, 6)
    assert torch.equal(views["e.1.up_proj.weight"].of(gate_up), gate_up[1].T[1::2])
    assert views["e.1.up_proj.weight"].shape(tuple(gate_up.shape)) == (3, 5)
    assert torch.equal(views["e.0.gate_proj.bias"].of(bias), bias[0, ::2])
    plain = dict(Stack("gate_up", "down").views("m.", "e.", 2, inner=3))
    assert torch.equal(plain["e.1.up_proj.weight"].of(gate_up.mT), gate_up[1].T[3:])
    assert plain["e.0.down_proj.weight"] == View("m.down", 0)


# ---- the compiled step

SIZES: dict[str, Any] = {
    "vocab_size": 97, "hidden_size": 72, "max_position_embeddings": 512,
    "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 16, "num_experts_per_tok": 3, "intermediate_size": 44,
    "moe_intermediate_size": 36, "hidden_act": "silu", "tie_word_embeddings": False,
}  # fmt: skip
MODELS: dict[str, dict[str, Any]] = {
    "softmax": {"model_type": "qwen3_moe", "num_experts": 7},
    "shared, gated": {
        "model_type": "qwen2_moe", "num_experts": 7, "shared_expert_intermediate_size": 52,
    },
    "groups, corrected": {
        "model_type": "glm4_moe", "n_routed_experts": 8, "n_group": 4, "topk_group": 2,
        "first_k_dense_replace": 1, "routed_scaling_factor": 1.5,
    },
    "latent attention": {
        "model_type": "deepseek_v3", "n_routed_experts": 6, "n_group": 2, "topk_group": 2,
        "first_k_dense_replace": 1, "kv_lora_rank": 48, "q_lora_rank": 24, "v_head_dim": 16,
        "qk_nope_head_dim": 32, "qk_rope_head_dim": 16, "num_key_value_heads": 4,
    },
    "latent attention without a query rank": {
        "model_type": "deepseek_v2", "n_routed_experts": 6, "first_k_dense_replace": 2,
        "kv_lora_rank": 16, "v_head_dim": 32, "qk_nope_head_dim": 16, "qk_rope_head_dim": 16,
        "num_key_value_heads": 4,
    },
    "biases, clamped, sinks": {"model_type": "gpt_oss", "num_local_experts": 5},
    "weights of inputs": {"model_type": "llama4_text", "num_local_experts": 5},
}  # fmt: skip


def random_tensors(config: dict[str, Any]) -> MemoryTensors:
    torch.manual_seed(0)
    plan = plan_of(config)
    assert plan is not None
    state = {name: torch.randn(shape) * 0.1 for name, shape in expected_tensors(plan)}
    for block in plan.blocks():
        if isinstance(block, Experts):
            state[block.router.bias] = torch.randn(len(block.experts))
            if block.correction:
                state[block.correction] = torch.randn(1, len(block.experts)) * 0.3
            for mlp in block.experts:
                state[mlp.output.bias] = torch.randn(mlp.output.out) * 0.1
    heads = {name: torch.ones(16) for name in norms_of_heads(config)}
    return MemoryTensors(state | heads)


def norms_of_heads(config: dict[str, Any]) -> Iterator[str]:
    plan = plan_of(config)
    assert plan is not None
    for block in plan.blocks():
        for norm in (getattr(block, "query_norm", None), getattr(block, "key_norm", None)):
            if norm and norm.weight and norm.group:
                yield norm.weight


def run(executor: Any, cache: Any, ids: list[int]) -> Tensor:
    with torch.inference_mode():
        logits: Tensor = executor.run([SequenceInput(cache, ids, all_logits=True)])[0]
    return logits.float()


@pytest.mark.parametrize("name", MODELS)
def test_compiled_experts(name: str, kernels: Kernels) -> None:
    """Near torch's, and the same to the bit in pieces of any size and beside another text."""
    config = SIZES | MODELS[name]
    plan, tensors = plan_of(config), random_tensors(config)
    assert plan is not None
    compiled = CompiledForward(config, tensors, kernels)
    reference = TorchForward(plan, tensors, "fp32", torch.device("cpu"))
    ids = torch.randint(97, (33,), generator=torch.Generator().manual_seed(3)).tolist()
    logits = run(compiled, compiled.new_cache(), ids)
    expected = run(reference, reference.new_cache(), ids)
    assert float((logits - expected).pow(2).mean().sqrt() / expected.std()) < 0.03
    cache = compiled.new_cache()
    pieces = [ids[:1], ids[1:3], ids[3:9], ids[9:]]
    assert torch.equal(torch.cat([run(compiled, cache, piece) for piece in pieces]), logits)
    batch = [SequenceInput(compiled.new_cache(), part, True) for part in (ids[5:20], ids)]
    assert torch.equal(compiled.run(batch)[1], logits)


for mark in needs_compiler:
    test_compiled_experts = mark(test_compiled_experts)


def test_a_router_of_another_size_is_refused() -> None:
    config = SIZES | MODELS["groups, corrected"]
    plan, tensors = plan_of(config), random_tensors(config)
    assert plan is not None
    name = next(name for name in tensors.shapes if name.endswith("correction_bias"))
    with pytest.raises(IntegrityError, match=f"{name}` is 7"):
        bind(plan, tensors.shapes | {name: (7,)})
