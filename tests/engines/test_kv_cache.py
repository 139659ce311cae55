"""The cache of one text: buffers by block, states with copies, and files."""

from pathlib import Path

import pytest
import torch
from support.compiled_models import error

from llmchat.engines.transformers.compiled.kv_cache import CompiledCache
from llmchat.engines.transformers.families.cache_shapes import KeyValues, State
from llmchat.engines.transformers.pytorch.kv_cache import KVCache

CPU = torch.device("cpu")
SHAPES = (KeyValues(2, 48, 32), None, State(((3, 2), (4,))), KeyValues(1, 16, 16))


def plain(shapes: tuple[KeyValues | State | None, ...] = SHAPES) -> KVCache:
    return KVCache(shapes, torch.float32, CPU)


def read(cache: KVCache, count: int) -> None:
    """Write random keys and values, and states that hold the length of the text."""
    ids = list(range(cache.length, cache.length + count))
    cache.reserve(cache.length + count)
    for block, shape in enumerate(cache.shape):
        if isinstance(shape, KeyValues):
            keys, values = (
                torch.randn(shape.heads, count, width)
                for width in (shape.key_width, shape.value_width)
            )
            cache.append(block, keys, values)
        elif isinstance(shape, State):
            cache.state(block).fill_(cache.length + count)
    cache.advance(ids)


def test_each_block_has_buffers_of_its_own_widths() -> None:
    cache = plain()
    read(cache, 5)
    keys, values = cache.held(0, 5)
    assert keys.shape == (2, 5, 48) and values.shape == (2, 5, 32)
    before = keys.clone()
    read(cache, 600)
    assert torch.equal(cache.held(0, 5)[0], before), "the buffers grew"
    assert cache.state(2).shape == (10,) and cache.state(2).dtype == torch.float32


def test_text_with_states_is_cut_back_to_the_last_copy() -> None:
    cache = plain()
    for count in (7, 3, 5):
        read(cache, count)
        cache.keep_states()
    assert cache.truncate(15) == 15
    assert cache.truncate(12) == 10 and cache.state(2).unique().tolist() == [10]
    read(cache, 4)
    assert cache.truncate(11) == 10, "the copy is still there"
    assert cache.truncate(6) == 0 and cache.state(2).count_nonzero() == 0
    assert cache.truncate(0) == 0


def test_text_without_states_is_cut_anywhere() -> None:
    cache = plain((KeyValues(1, 16, 16), None))
    read(cache, 20)
    assert cache.truncate(13) == 13 and cache.truncate(99) == 13


def test_prefix_is_copied_with_its_states() -> None:
    first, second = plain(), plain()
    for count in (7, 3):
        read(first, count)
        first.keep_states()
    read(second, 30)
    second.copy_from(first, 9)
    assert second.length == 7 and second.state(2).unique().tolist() == [7]
    assert torch.equal(second.held(0, 7)[1], first.held(0, 7)[1])
    assert first.length == 10 and first.state(2).unique().tolist() == [10]
    second.copy_from(first, 10)
    assert second.length == 10 and second.truncate(8) == 7
    second.copy_from(first, 5)
    assert second.length == 0 and second.state(2).count_nonzero() == 0


def test_states_and_their_copies_survive_on_disk(tmp_path: Path) -> None:
    cache, again = plain(), plain()
    for count in (7, 3):
        read(cache, count)
        cache.keep_states()
    ids = list(range(10))
    cache.save(tmp_path / "file", ids, "key")
    assert again.load(tmp_path / "file", "key") == ids and again.length == 10
    assert again.state(2).unique().tolist() == [10]
    for side, old in zip(again.held(0, 10), cache.held(0, 10), strict=True):
        assert torch.equal(side, old)
    assert again.truncate(9) == 7 and again.state(2).unique().tolist() == [7]


@pytest.mark.parametrize(
    "shapes", [(*SHAPES, None), (KeyValues(2, 32, 48), *SHAPES[1:]), SHAPES[:3]]
)
def test_file_of_another_layout_is_not_loaded(
    tmp_path: Path, shapes: tuple[KeyValues | State | None, ...]
) -> None:
    cache, other = plain(), plain(shapes)
    read(cache, 4)
    cache.save(tmp_path / "file", [0, 1, 2, 3], "key")
    read(other, 2)
    assert other.load(tmp_path / "file", "key") == [] and other.length == 0
    assert plain().load(tmp_path / "file", "other key") == []
    (tmp_path / "file").write_bytes(b"damaged")
    assert cache.load(tmp_path / "file", "key") == [] and cache.length == 0


def test_compiled_cache_has_an_address_for_each_block_and_one_format_on_disk(
    tmp_path: Path,
) -> None:
    cache, compiled, again = plain(), CompiledCache(SHAPES), plain()
    read(cache, 300)
    cache.keep_states()
    ids = list(range(300))
    cache.save(tmp_path / "plain", ids, "key")
    assert compiled.load(tmp_path / "plain", "key") == ids
    for array, filled in (
        (compiled.keys, {0, 3}),
        (compiled.values, {0, 3}),
        (compiled.states, {2}),
    ):
        assert {block for block, address in enumerate(array) if address} == filled
    assert compiled.states[2] == compiled.state(2).data_ptr()
    compiled.save(tmp_path / "compiled", ids, "key")
    assert again.load(tmp_path / "compiled", "key") == ids
    for block in (0, 3):
        for ours, theirs in zip(again.held(block, 300), cache.held(block, 300), strict=True):
            assert error(ours, theirs) < 0.005, "rounded to bfloat16"
    assert torch.equal(again.state(2), cache.state(2))
