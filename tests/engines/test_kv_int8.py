"""A KV cache of 8 bits: its numbers, its files, and both executors on it."""

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from support.checkpoints import save_tiny, tiny_config
from support.compiled_models import (
    error,
    logits_of,
    make_config,
    make_tensors,
    needs_compiler,
    plan_for,
    random_ids,
    torch_model,
)

from llmchat.engines.transformers import TransformersEngine
from llmchat.engines.transformers.compiled import CompiledForward
from llmchat.engines.transformers.compiled.build import load_kernels
from llmchat.engines.transformers.compiled.kernels import Kernels
from llmchat.engines.transformers.compiled.kv_cache import CompiledCache
from llmchat.engines.transformers.executor import SequenceInput
from llmchat.engines.transformers.families import viewed
from llmchat.engines.transformers.families.cache_shapes import KeyValues, bytes_of_token
from llmchat.engines.transformers.pytorch.cache_numbers import Int8Numbers, codes_of
from llmchat.engines.transformers.pytorch.forward import TorchForward
from llmchat.engines.transformers.pytorch.kv_cache import KVCache
from llmchat.engines.transformers.tensors import Tensors
from llmchat.errors import UsageError
from llmchat.settings.types import KvKind

CPU = torch.device("cpu")
SHAPES = (KeyValues(2, 48, 32), None, KeyValues(1, 16, 80))


def cache_of(kind: KvKind, count: int = 0) -> KVCache:
    """A cache of `count` positions with random keys and values."""
    cache = KVCache(SHAPES, torch.float32, CPU, kind=kind)
    cache.reserve(count)
    for block, shape in enumerate(SHAPES if count else ()):
        if shape:
            widths = shape.key_width, shape.value_width
            cache.append(block, *(torch.randn(shape.heads, count, width) for width in widths))
    cache.advance(list(range(count)))
    return cache


def torch_int8(config: dict[str, Any], tensors: Tensors) -> TorchForward:
    plan = plan_for(config)
    return TorchForward(plan, viewed(config, tensors), "fp32", CPU, "int8")


def test_number_is_wrong_by_at_most_half_a_step_of_its_group() -> None:
    numbers, x = Int8Numbers(torch.float32), torch.randn(3, 5, 80)
    x[0, 0, 40], x[1] = 1000.0, 0.0
    stored = numbers.stored(x)
    assert stored.shape == (3, 5, 80 + 2 * 3) and codes_of(86) == 80
    wrong = (numbers.numbers(stored, 80) - x).abs()
    for start, end in ((0, 32), (32, 64), (64, 80)):
        # The step is rounded to bfloat16, and the largest number to the last step.
        most = x[..., start:end].abs().amax(-1) / 127 * (0.5 + 127 / 256)
        assert (wrong[..., start:end].amax(-1) <= most).all()
    assert wrong[0, 0, :32].max() < 0.02, "an outlier costs precision in its own group alone"


@pytest.mark.parametrize("width", [16, 32, 48, 64, 80, 96, 128, 576])
def test_width_of_a_row_tells_its_codes(width: int) -> None:
    assert codes_of(Int8Numbers(torch.float32).width(width)) == width


def test_torch_cache_takes_half_the_memory_and_holds_what_was_written() -> None:
    full, cache = cache_of("full", 600), cache_of("int8", 600)
    assert cache._keys[0] is not None and full._keys[0] is not None
    assert cache._keys[0].nbytes * 3.6 < full._keys[0].nbytes, "of fp32"
    before = cache.held(2, 600)[1]
    assert before.shape == (1, 600, 80) and before.dtype == torch.float32
    other = KVCache(SHAPES, torch.float32, CPU, kind="int8")
    other.copy_from(cache, 500)
    assert torch.equal(other.held(2, 500)[1], before[:, :500])
    cache.truncate(10)
    cache.reserve(5000)
    assert torch.equal(cache.held(2, 10)[1], before[:, :10])


def test_files_have_one_format_and_are_not_read_by_another_kind(tmp_path: Path) -> None:
    cache, ids, file = cache_of("int8", 300), list(range(300)), tmp_path / "file"
    cache.save(file, ids, "key")
    assert cache_of("full").load(file, "key") == []
    compiled, again = CompiledCache(SHAPES, kind="int8"), cache_of("int8")
    assert compiled.load(file, "key") == ids
    compiled.save(file, ids, "key")
    assert again.load(file, "key") == ids
    for block in (0, 2):
        for ours, theirs in zip(again.held(block, 300), cache.held(block, 300), strict=True):
            assert torch.equal(ours, theirs)
    assert CompiledCache(SHAPES).load(file, "key") == []


def test_bytes_of_a_token_are_those_of_the_buffers() -> None:
    cache = cache_of("int8", 1)
    found = sum(side.nbytes for side in (*cache._keys, *cache._values) if side is not None)
    assert found == cache.capacity * bytes_of_token(SHAPES, 4, "int8")


def test_torch_with_8_bits_stays_near_its_usual_cache() -> None:
    config = make_config()
    tensors, ids = make_tensors(config), random_ids(config, 60)
    exact, model = logits_of(torch_model(config, tensors), ids), torch_int8(config, tensors)
    whole, cache = logits_of(model, ids), model.new_cache()
    assert 0 < error(whole, exact) < 0.03
    with torch.inference_mode():
        parts = [
            model.run([SequenceInput(cache, ids[start:end], all_logits=True)])[0]
            for start, end in pairwise((0, 1, 2, 40, 60))
        ]
    assert error(torch.cat(parts), whole) < 1e-4


class Compiled:
    """A compiled model of random weights with a cache of 8 bits."""

    def __init__(self, kernels: Kernels, **changes: Any):
        self.config = make_config(**changes)
        self.tensors = make_tensors(self.config)
        self.model = CompiledForward(self.config, self.tensors, kernels, "int8")

    def ids(self, count: int, seed: int = 0) -> list[int]:
        return random_ids(self.config, count, seed)

    def run(self, cache: Any, ids: list[int]) -> torch.Tensor:
        return self.model.run([SequenceInput(cache, ids, all_logits=True)])[0]


def compiled(test: Any) -> Any:
    for mark in needs_compiler:
        test = mark(test)
    return test


# Heads of 16, 80 and 64; one, two, three and four queries that share a key.
HEADS: list[dict[str, Any]] = [
    {},
    {"hidden_size": 160, "num_attention_heads": 2, "num_key_value_heads": 1},
    {"hidden_size": 72, "head_dim": 16, "num_key_value_heads": 4},
    {"hidden_size": 192, "num_attention_heads": 3, "num_key_value_heads": 1},
    {"num_attention_heads": 8, "num_key_value_heads": 1, "head_dim": 48},
]


@compiled
@pytest.mark.parametrize("heads", HEADS)
def test_compiled_step_gives_the_logits_of_torch(kernels: Kernels, heads: dict[str, Any]) -> None:
    one = Compiled(kernels, **heads)
    ids = one.ids(300)
    expected = logits_of(torch_int8(one.config, one.tensors), ids)
    assert error(logits_of(one.model, ids), expected) < 0.02


@compiled
@pytest.mark.parametrize("heads", HEADS[:2])
def test_cached_and_truncated_text_equals_a_fresh_one_to_the_bit(
    kernels: Kernels, heads: dict[str, Any]
) -> None:
    one, random = Compiled(kernels, **heads), torch.Generator().manual_seed(1)
    ids = one.ids(600)
    expected, cache = logits_of(one.model, ids), one.model.new_cache()
    for _ in range(8):
        cache.truncate(int(torch.randint(cache.length + 1, (), generator=random)))
        while cache.length < len(ids) and torch.rand((), generator=random) < 0.8:
            start = cache.length
            chunk = ids[start : start + int(torch.randint(1, 200, (), generator=random))]
            assert torch.equal(one.run(cache, chunk), expected[start : start + len(chunk)])


@compiled
def test_text_in_a_batch_equals_the_text_alone_to_the_bit(kernels: Kernels) -> None:
    one = Compiled(kernels)
    texts = [one.ids(40 + 130 * index, index) for index in range(3)]
    alone = [logits_of(one.model, ids) for ids in texts]
    caches = [one.model.new_cache() for _ in texts]
    for start, end in ((0, 1), (1, 18), (18, 19), (19, 22), (22, 400)):
        batch = [
            SequenceInput(cache, ids[start:end], all_logits=True)
            for cache, ids in zip(caches, texts, strict=True)
            if ids[start:end]
        ]
        found = one.model.run(batch)
        for logits, expected in zip(found, alone, strict=True):
            assert torch.equal(logits, expected[start : start + len(logits)])


@compiled
def test_copied_and_saved_caches_continue_to_the_bit(
    kernels: Kernels, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(CompiledCache, "FIRST", 256)
    one = Compiled(kernels)
    ids = one.ids(600)
    expected = logits_of(one.model, ids)
    first, copied, loaded = (one.model.new_cache() for _ in range(3))
    one.run(first, ids[:300])
    copied.copy_from(first, 250)
    assert torch.equal(one.run(copied, ids[250:]), expected[250:])
    first.save(tmp_path / "file", ids[:300], "key")
    assert loaded.load(tmp_path / "file", "key") == ids[:300]
    assert torch.equal(one.run(loaded, ids[300:]), expected[300:])


@compiled
def test_both_executors_store_the_same_numbers(kernels: Kernels, tmp_path: Path) -> None:
    """Those of the first block, which come from the same inputs but for 8-bit activations."""
    one = Compiled(kernels)
    torch_one, ids = torch_int8(one.config, one.tensors), one.ids(270)
    ours, theirs, loaded = one.model.new_cache(), torch_one.new_cache(), torch_one.new_cache()
    one.run(ours, ids)
    torch_one.run([SequenceInput(theirs, ids)])
    ours.save(tmp_path / "file", ids, "key")
    assert loaded.load(tmp_path / "file", "key") == ids
    for got, expected in zip(loaded.held(0, 270), theirs.held(0, 270), strict=True):
        assert error(got, expected) < 0.02


@compiled
@pytest.mark.slow
def test_processors_with_byte_products_but_no_bfloat16_compute_the_same(
    kernel_folder: Path,
) -> None:
    kinds: list[KvKind] = ["full", "int8"]
    kernels = load_kernels(kernel_folder, ("-mno-avx512bf16",))
    config = make_config()
    tensors, ids = make_tensors(config), random_ids(config, 300)
    exact = logits_of(torch_model(config, tensors), ids)
    for kind in kinds:
        assert error(logits_of(CompiledForward(config, tensors, kernels, kind), ids), exact) < 0.03


def test_engine_refuses_what_has_no_such_cache_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = save_tiny(tmp_path, tiny_config())
    with pytest.raises(UsageError, match="--kv int8 is not supported on meta") as refused:
        monkeypatch.setattr(
            "llmchat.engines.transformers.engine.device_named", lambda _: torch.device("meta")
        )
        TransformersEngine(base, weights="fp32", kv="int8")
    assert refused.value.hint.startswith("--kv full")


def test_engine_names_its_cache(tmp_path: Path) -> None:
    base = save_tiny(tmp_path, tiny_config())
    engine = TransformersEngine(base, weights="fp32", kv="int8", device="cpu", name="tiny")
    assert engine.describe() == "tiny fp32 kv int8 cpu"
    usual = TransformersEngine(base, weights="fp32", device="cpu", name="tiny")
    ids = list(range(10, 60))
    assert 0 < error(engine.logits(ids), usual.logits(ids)) < 0.03
    assert engine._slots._most > 3 * usual._slots._most, "more texts are remembered"
