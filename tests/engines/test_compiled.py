"""The compiled forward pass: whole models against plain torch, and row invariance to the bit."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from support.compiled_models import (
    SHAPES,
    error,
    logits_of,
    make_adapter,
    make_config,
    make_tensors,
    needs_compiler,
    random_ids,
    torch_model,
)

from llmchat.engines.transformers.compiled import CompiledForward, supports
from llmchat.engines.transformers.compiled.kernels import Kernels
from llmchat.engines.transformers.compiled.kv_cache import CompiledCache
from llmchat.engines.transformers.executor import SequenceInput
from llmchat.engines.transformers.families.cache_shapes import KeyValues
from llmchat.engines.transformers.pytorch.int8 import quantise_rows
from llmchat.engines.transformers.weights import MemoryTensors
from llmchat.errors import IntegrityError

pytestmark = needs_compiler


def last_logits(model: Any, cache: Any, ids: list[int]) -> torch.Tensor:
    logits: torch.Tensor = model.run([SequenceInput(cache, ids)])[0]
    return logits


def all_logits(model: Any, cache: Any, ids: list[int]) -> torch.Tensor:
    logits: torch.Tensor = model.run([SequenceInput(cache, ids, all_logits=True)])[0]
    return logits


@pytest.mark.parametrize("shape", SHAPES)
def test_model_gives_the_logits_of_plain_torch(kernels: Kernels, shape: str) -> None:
    """Within what 8-bit activations and 16-bit keys and values cost: 1.5 % of the logits."""
    config = make_config(**SHAPES[shape])
    tensors, ids = make_tensors(config), random_ids(config, 40)
    assert supports(config)
    exact = logits_of(torch_model(config, tensors), ids)
    assert error(logits_of(CompiledForward(config, tensors, kernels), ids), exact) < 0.015


def test_long_text_gives_the_logits_of_plain_torch(kernels: Kernels) -> None:
    """More than one span of keys, and queries in each of them."""
    config = make_config()
    tensors, ids = make_tensors(config), random_ids(config, 1100)
    exact = logits_of(torch_model(config, tensors), ids)
    assert error(logits_of(CompiledForward(config, tensors, kernels), ids), exact) < 0.015


def test_cached_and_truncated_text_equals_a_fresh_one_to_the_bit(kernels: Kernels) -> None:
    config = make_config()
    model = CompiledForward(config, make_tensors(config), kernels)
    ids, random = random_ids(config, 700), torch.Generator().manual_seed(1)
    expected, cache = logits_of(model, ids), model.new_cache()
    for _ in range(12):
        cache.truncate(int(torch.randint(cache.length + 1, (), generator=random)))
        while cache.length < len(ids) and torch.rand((), generator=random) < 0.8:
            start = cache.length
            chunk = ids[start : start + int(torch.randint(1, 200, (), generator=random))]
            got = all_logits(model, cache, chunk)
            assert torch.equal(got, expected[start : start + len(chunk)])
    assert torch.equal(last_logits(model, model.new_cache(), ids), expected[-1:])


def test_text_in_a_batch_equals_the_text_alone_to_the_bit(kernels: Kernels) -> None:
    config = make_config(**SHAPES["qwen2"])
    model = CompiledForward(config, make_tensors(config), kernels)
    one = make_adapter(config, 5, 1)
    other = make_adapter(config, 3, 2, names=("q_proj", "down_proj"))
    adapters = [(), ((one, 1.0),), ((other, -0.5), (one, 0.7)), ()]
    texts = [random_ids(config, 30 + 20 * index, index) for index in range(4)]
    alone = [logits_of(model, ids, adapters=own) for ids, own in zip(texts, adapters, strict=True)]
    caches = [model.new_cache() for _ in texts]
    for start, end in ((0, 1), (1, 18), (18, 19), (19, 22), (22, 30)):
        batch = [
            SequenceInput(caches[index], ids[start:end], index % 2 == 0, adapters[index])
            for index, ids in enumerate(texts)
        ]
        for sequence, logits, expected in zip(batch, model.run(batch), alone, strict=True):
            first = start if sequence.all_logits else end - 1
            assert torch.equal(logits, expected[first:end])


@pytest.mark.parametrize("rank", [1, 4, 16])
def test_live_adapter_is_close_to_a_merged_one(kernels: Kernels, rank: int) -> None:
    config = make_config(vocab_size=333)
    tensors, ids = make_tensors(config), random_ids(config, 40)
    adapter = make_adapter(config, rank, 3)
    a, b = torch.randn(rank, 64).bfloat16() / 8, torch.randn(333, rank).bfloat16() / 4
    adapter.modules["lm_head"] = a, b, 0.5
    merged = {name: tensors.get(name) for name in tensors.shapes}
    for name, (a, b, scale) in adapter.modules.items():
        merged[f"{name}.weight"] = merged[f"{name}.weight"] + 0.5 * scale * b.float() @ a.float()
    expected = logits_of(torch_model(config, MemoryTensors(merged)), ids)
    model = CompiledForward(config, tensors, kernels)
    assert error(logits_of(model, ids, adapters=((adapter, 0.5),)), expected) < 0.02
    assert error(logits_of(model, ids), expected) > 0.1


def test_copied_cache_that_grows_equals_a_fresh_one_to_the_bit(
    kernels: Kernels, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its buffers move: their addresses must be found again."""
    monkeypatch.setattr(CompiledCache, "FIRST", 256)
    config = make_config()
    model = CompiledForward(config, make_tensors(config), kernels)
    ids = random_ids(config, 600)
    expected = logits_of(model, ids)
    first, second = model.new_cache(), model.new_cache()
    last_logits(model, first, ids[:300])
    second.copy_from(first, 250)
    assert torch.equal(all_logits(model, second, ids[250:]), expected[250:])


class Saved:
    """The same prompt in the cache of each executor, saved to a file."""

    def __init__(self, kernels: Kernels, folder: Path, count: int):
        config = make_config()
        tensors = make_tensors(config)
        self.model = CompiledForward(config, tensors, kernels)
        self.plain = torch_model(config, tensors)
        *self.prompt, self.next = random_ids(config, count + 1)
        self.cache, self.plain_cache = self.model.new_cache(), self.plain.new_cache()
        self.file, self.plain_file = folder / "compiled", folder / "plain"
        last_logits(self.model, self.cache, self.prompt)
        last_logits(self.plain, self.plain_cache, self.prompt)
        self.cache.save(self.file, self.prompt, "key")
        self.plain_cache.save(self.plain_file, self.prompt, "key")


@pytest.mark.parametrize("count", [1, 31, 257, 300])
def test_saved_cache_continues_to_the_bit(kernels: Kernels, tmp_path: Path, count: int) -> None:
    saved = Saved(kernels, tmp_path, count)
    again = saved.model.new_cache()
    assert again.load(saved.file, "key") == saved.prompt
    expected = last_logits(saved.model, saved.cache, [saved.next])
    assert torch.equal(last_logits(saved.model, again, [saved.next]), expected)


@pytest.mark.parametrize("count", [1, 257])
def test_saved_caches_have_one_format(kernels: Kernels, tmp_path: Path, count: int) -> None:
    """In memory keys and values have another order; on disk every executor uses the same."""
    saved = Saved(kernels, tmp_path, count)
    compiled, plain = load_file(saved.file), load_file(saved.plain_file)
    assert compiled.keys() == plain.keys()
    for name, tensor in compiled.items():
        assert tensor.shape == plain[name].shape and error(tensor, plain[name]) < 0.05
    loaded = saved.model.new_cache()
    assert loaded.load(saved.plain_file, "key") == saved.prompt
    expected = last_logits(saved.plain, saved.plain_cache, [saved.next])
    assert error(last_logits(saved.model, loaded, [saved.next]), expected) < 0.05


def test_saved_cache_with_missing_positions_is_not_loaded(kernels: Kernels, tmp_path: Path) -> None:
    saved = Saved(kernels, tmp_path, 31)
    cut = {name: part[:, :-1].contiguous() for name, part in load_file(saved.file).items()}
    with safe_open(saved.file, "pt") as file:
        save_file(cut, tmp_path / "cut", file.metadata())
    for executor in (saved.model, saved.plain):
        assert executor.new_cache().load(tmp_path / "cut", "key") == []


def test_invalid_input_never_reaches_the_kernels(kernels: Kernels) -> None:
    config = make_config()
    model = CompiledForward(config, make_tensors(config), kernels)
    for ids in ([], [-1], [5, 320]):
        with pytest.raises(ValueError, match="vocabulary"):
            last_logits(model, model.new_cache(), ids)
    with pytest.raises(ValueError, match="a cache of another model"):
        last_logits(model, CompiledCache([KeyValues(2, 32, 32)] * 2), [1])
    cache = model.new_cache()
    with pytest.raises(ValueError, match="one cache in two"):
        model.run([SequenceInput(cache, [1]), SequenceInput(cache, [2])])
    with pytest.raises(IntegrityError, match="requires 80 x 64"):
        CompiledForward(config | {"intermediate_size": 80}, make_tensors(config), kernels)
    weight, scb = quantise_rows(torch.randn(16, 64))
    with pytest.raises(IntegrityError, match="needs 2x64"):
        kernels.multiply([(weight, scb)], torch.randn(2, 65))


@pytest.mark.parametrize(
    "change",
    [
        {"model_type": "bert"},
        {"head_dim": 24},
        {"num_attention_heads": 770, "num_key_value_heads": 2, "head_dim": 16},
    ],
)
def test_architecture_beyond_the_kernels_is_not_supported(change: dict[str, Any]) -> None:
    assert not supports(make_config(**change))
