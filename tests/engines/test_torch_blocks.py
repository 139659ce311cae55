"""The torch executor block by block: attention against its definition, parts of weights, long
texts, interrupted passes. Whole families are compared with transformers in families/.
"""

from dataclasses import replace
from typing import Any

import pytest
import torch
from support.compiled_models import (
    error,
    logits_of,
    make_config,
    make_tensors,
    plan_for,
    random_ids,
    torch_model,
)
from torch import Tensor

from llmchat.engines.transformers.executor import SequenceInput
from llmchat.engines.transformers.families.blocks import Attention, Heads, Linear, Mlp, Norm
from llmchat.engines.transformers.families.check import expected
from llmchat.engines.transformers.families.parts import separate_heads
from llmchat.engines.transformers.live_lora import LiveAdapter, LiveAdapters, Switch
from llmchat.engines.transformers.pytorch import attend, forward
from llmchat.engines.transformers.pytorch.attend import Attend
from llmchat.engines.transformers.pytorch.attention import heads_of
from llmchat.engines.transformers.pytorch.cuda import is_plain
from llmchat.engines.transformers.pytorch.loader import Loader
from llmchat.engines.transformers.pytorch.norms import TorchNorm
from llmchat.engines.transformers.weights import MemoryTensors

CPU = torch.device("cpu")
HEADS, KV_HEADS, DIM, VALUE = 6, 2, 8, 12
USUAL = Attention((), Linear("o", 4, 4), *separate_heads(HEADS, KV_HEADS, DIM), scale=0.3)
KINDS: dict[str, dict[str, Any]] = {
    "plain": {},
    "window": {"window": 5},
    "chunk": {"chunk": 4},
    "softcap": {"softcap": 1.5},
    "sinks": {"sinks": "sinks"},
    "slopes": {"slopes": torch.rand(HEADS)},
    "all": {"window": 7, "chunk": 16, "softcap": 2.0, "sinks": "s", "slopes": torch.rand(HEADS)},
}


def by_definition(
    block: Attention, sinks: Tensor | None, queries: Tensor, keys: Tensor, values: Tensor
) -> Tensor:
    """Attention of each query on its own, in float64."""
    queries, keys, values = queries.double(), keys.double(), values.double()
    past, out = keys.shape[1] - queries.shape[1], torch.empty(HEADS, queries.shape[1], VALUE)
    for head in range(HEADS):
        mine = head // (HEADS // KV_HEADS)
        for row in range(queries.shape[1]):
            at, seen = past + row, []
            for key in range(at + 1):
                in_window = not block.window or key > at - block.window
                in_chunk = not block.chunk or key // block.chunk == at // block.chunk
                seen += [key] if in_window and in_chunk else []
            scores = keys[mine, seen] @ queries[head, row] * block.scale
            if block.softcap:
                scores = block.softcap * (scores / block.softcap).tanh()
            if block.slopes is not None:
                scores = scores + block.slopes[head] * (torch.tensor(seen) - at)
            if sinks is not None:
                scores = torch.cat((scores, sinks[head : head + 1].double()))
            out[head, row] = scores.softmax(0)[: len(seen)] @ values[mine, seen]
    return out


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("past", "count"), [(0, 1), (0, 23), (9, 1), (9, 14)])
def test_attention_is_what_its_fields_say(
    kind: str, past: int, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attend, "_QUERIES", 6)
    torch.manual_seed(1)
    block = replace(USUAL, **KINDS[kind])
    sinks = torch.randn(HEADS) if block.sinks else None
    queries, keys = torch.randn(HEADS, count, DIM), torch.randn(KV_HEADS, past + count, DIM)
    values = torch.randn(KV_HEADS, past + count, VALUE)
    got = Attend(block, sinks, CPU)(queries, keys, values)
    expected = by_definition(block, sinks, queries, keys, values)
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "heads",
    [Heads(3, 4, 2, 4), Heads(2, 4, 1, 7), Heads(6, 4, 3, 5, 3, 20), Heads(4, 2, 0, 3, 1, 6)],
)
def test_heads_are_found_where_the_plan_says(heads: Heads) -> None:
    row = torch.randn(5, 43)
    for head, found in enumerate(heads_of(row, heads)):
        begin = heads.begin(head)
        assert torch.equal(found, row[:, begin : begin + heads.width])


@pytest.mark.parametrize("offset", [0.0, 1.0])
@pytest.mark.parametrize("numbers", [4, 12])
@pytest.mark.parametrize("kind", ["rms", "layer"])
def test_norm_of_groups_is_that_of_each_group(kind: Any, numbers: int, offset: float) -> None:
    """The weight is that of all groups, or one for each."""
    norm = Norm(12, 1e-5, "w", "b", kind, group=4, offset=offset, scale=0.5)
    weight, bias, x = torch.randn(numbers), torch.randn(numbers), torch.randn(3, 12)
    got = TorchNorm(norm, weight, bias, torch.float32)(x)
    for group in range(3):
        part, own = x[:, 4 * group : 4 * group + 4], slice(4 * group, 4 * group + 4)
        w, b = (one if numbers == 4 else one[own] for one in (weight, bias))
        part = part - part.mean(1, keepdim=True) if kind == "layer" else part
        normed = part / (part.square().mean(1, keepdim=True) + 1e-5).sqrt()
        torch.testing.assert_close(got[:, own], 0.5 * (normed * (w + offset) + b))


@pytest.mark.parametrize("kind", ["fp32", "int8"])
def test_parts_of_weights_are_rows_of_them_with_their_adapter(kind: Any) -> None:
    """Rows of one matrix in another order, beside all of another one."""
    torch.manual_seed(2)
    sizes = {"one.weight": (48, 32), "one.bias": (48,), "two.weight": (16, 32), "two.bias": (16,)}
    tensors = MemoryTensors({name: torch.randn(size) for name, size in sizes.items()})
    parts = (Linear("one", 16, 32, 32, 48), Linear("two", 16, 32), Linear("one", 32, 32, 0, 48))
    switch = Switch()
    layer = Loader(tensors, kind, CPU, switch).joined(parts)
    a, b = torch.randn(4, 32), torch.randn(48, 4)
    x = torch.randn(3, 32)
    whole = x @ tensors.get("one.weight").T + tensors.get("one.bias")
    other = x @ tensors.get("two.weight").T + tensors.get("two.bias")
    adapter = LiveAdapter("a", {"one": (a, b, 0.5)})
    changed: list[tuple[LiveAdapters, Tensor]] = [
        ((), whole),
        (((adapter, 2.0),), whole + x @ a.T @ b.T),
    ]
    for adapters, one in changed:
        switch.active = adapters
        expected = torch.cat((one[:, 32:], other, one[:, :32]), dim=1)
        got = layer(x.to(torch.float32 if kind == "fp32" else torch.bfloat16))
        assert error(got, expected) < (1e-5 if kind == "fp32" else 0.02)


LONG = {
    "rope_type": "longrope", "rope_theta": 1e4, "original_max_position_embeddings": 20,
    "short_factor": [1.0] * 8, "long_factor": [4.0] * 8, "factor": 4.0,
}  # fmt: skip


def long_model() -> forward.TorchForward:
    config = make_config(rope_parameters=LONG, max_position_embeddings=80)
    return torch_model(config, make_tensors(config))


def last(model: Any, cache: Any, ids: list[int], all_logits: bool = False) -> Tensor:
    with torch.inference_mode():
        logits: Tensor = model.run([SequenceInput(cache, ids, all_logits)])[0]
    return logits


def test_text_that_crosses_the_trained_length_is_read_again() -> None:
    """Both ways: a longer text, and one that is cut."""
    model, ids = long_model(), random_ids(make_config(), 30)
    cache = model.new_cache()
    short = last(model, cache, ids[:18])
    for token in ids[18:]:
        stepwise = last(model, cache, [token])
    assert cache.is_long and cache.length == 30
    torch.testing.assert_close(stepwise, last(model, model.new_cache(), ids))
    assert cache.truncate(17) == 17
    torch.testing.assert_close(last(model, cache, ids[17:18]), short)
    assert not cache.is_long


def test_draft_across_the_trained_length_gives_the_logits_of_single_tokens() -> None:
    model, ids = long_model(), random_ids(make_config(), 24)
    one, other = model.new_cache(), model.new_cache()
    last(model, one, ids[:18])
    last(model, other, ids[:18])
    single = torch.cat([last(model, one, [token]) for token in ids[18:]])
    torch.testing.assert_close(last(model, other, ids[18:], all_logits=True), single)


def test_texts_of_both_lengths_go_together() -> None:
    model, ids = long_model(), random_ids(make_config(), 30)
    caches = [model.new_cache() for _ in range(2)]
    alone = [last(model, cache, ids[:count]) for cache, count in zip(caches, (10, 29), strict=True)]
    alone = [last(model, cache, [7]) for cache in caches]
    for cache, count in zip(caches, (10, 29), strict=True):
        cache.truncate(count)
    with torch.inference_mode():
        together = model.run([SequenceInput(cache, [7]) for cache in caches])
    for mine, theirs in zip(together, alone, strict=True):
        torch.testing.assert_close(mine, theirs)


def test_interrupt_leaves_no_half_changed_states(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a hybrid, whose first block has changed its state when the second is interrupted."""
    config = {
        "model_type": "lfm2", "vocab_size": 320, "hidden_size": 64, "intermediate_size": 96,
        "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
        "layer_types": ["conv", "full_attention"], "block_auto_adjust_ff_dim": False,
    }  # fmt: skip
    plan, ids = plan_for(config), random_ids(make_config(), 12)
    torch.manual_seed(3)
    tensors = MemoryTensors({name: torch.randn(size) / 8 for name, size in expected(plan).items()})
    model = forward.TorchForward(plan, tensors, "fp32", CPU)
    cold, cache = last(model, model.new_cache(), ids), model.new_cache()
    last(model, cache, ids[:5])
    with monkeypatch.context() as patch:
        patch.setattr(Attend, "__call__", interrupted)
        with pytest.raises(KeyboardInterrupt):
            last(model, cache, ids[5:])
    assert cache.length == 0
    torch.testing.assert_close(last(model, cache, ids), cold)


def interrupted(*arguments: Any) -> Tensor:
    raise KeyboardInterrupt


def test_reserved_logits_are_those_of_the_last_token() -> None:
    config = make_config(model_type="qwen2")
    model = torch_model(config, make_tensors(config))
    ids = random_ids(config, 9)
    every = logits_of(model, ids)
    torch.testing.assert_close(last(model, model.new_cache(), ids), every[-1:])


@pytest.mark.parametrize(
    "change",
    [
        {"model_type": "mistral", "sliding_window": 16},
        {"rope_parameters": LONG, "max_position_embeddings": 80},
        {"model_type": "qwen3", "head_dim": 16},
        {"model_type": "gemma", "head_dim": 16},
    ],
)
def test_fused_kernels_take_only_what_they_compute(change: dict[str, Any]) -> None:
    assert not is_plain(plan_for(make_config(hidden_act="silu", **change)))


@pytest.mark.parametrize("change", [{}, {"model_type": "qwen2"}, {"tie_word_embeddings": True}])
def test_fused_kernels_take_models_like_llama(change: dict[str, Any]) -> None:
    plan = plan_for(make_config(**change))
    assert is_plain(plan)
    step = plan.layers[0].stages[1][0]
    assert isinstance(step.block, Mlp)
    other = replace(step, block=replace(step.block, activation="gelu"))
    layer = replace(plan.layers[0], stages=(plan.layers[0].stages[0], (other,)))
    assert not is_plain(replace(plan, layers=(layer, *plan.layers[1:])))
