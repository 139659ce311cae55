"""The law of the compiled step for every family: the numbers of a token do not depend, to the bit,
on what is read with it.
"""

from collections.abc import Iterator

import pytest
import torch
from support.compiled_models import needs_compiler
from support.family_engines import TinyModel, all_logits, new_cache
from support.family_lists import COMPILED, cases

from llmchat.engines.transformers.executor import SequenceInput

pytestmark = [pytest.mark.slow, *needs_compiler]
# More than a span of keys and a window of 270.
LENGTH = 340


@pytest.fixture(params=[1, 2], ids=["one thread", "two threads"], autouse=True)
def threads(request: pytest.FixtureRequest) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield
    torch.set_num_threads(before)


def turning(is_wanted: bool) -> list[str]:
    """The cases whose positions all turn when a text grows beyond a length, or the others."""
    return [name for name in COMPILED if ("longrope" in name or "dynamic" in name) == is_wanted]


@cases(turning(False))
def test_pieces_of_any_size(tiny: TinyModel) -> None:
    ids = tiny.ids(LENGTH)
    expected = all_logits(tiny.rounded, ids)
    for size in (1, 2, 7, 64, 300):
        cache = new_cache(tiny.rounded)
        for start in range(0, LENGTH, size):
            got = all_logits(tiny.rounded, ids[start : start + size], cache)
            assert torch.equal(got, expected[start : start + size]), f"{size} tokens at {start}"


@cases(turning(False))
def test_the_last_row_alone_and_after_going_back(tiny: TinyModel) -> None:
    """With and without logits of all tokens, as drafts are read, which are partly forgotten."""
    ids, random = tiny.ids(LENGTH), torch.Generator().manual_seed(1)
    expected = all_logits(tiny.rounded, ids)
    cache = new_cache(tiny.rounded)
    prompt = cache.length
    for _ in range(20):
        kept = prompt + int(torch.randint(cache.length - prompt + 1, (), generator=random))
        start = cache.truncate(kept) - prompt
        for size in torch.randint(1, 90, (3,), generator=random).tolist():
            chunk, everything = ids[start : start + size], bool(size % 2)
            with torch.inference_mode():
                sequence = SequenceInput(cache, chunk, all_logits=everything)
                (got,) = tiny.rounded._forward.run([sequence]) if chunk else (expected[:0],)
            first = start if everything else max(start, start + len(chunk) - 1)
            start += len(chunk)
            assert torch.equal(got.float(), expected[first:start])
            assert cache.length == prompt + start


@cases(turning(False))
def test_beside_other_texts(tiny: TinyModel) -> None:
    texts = [tiny.ids(40 + 30 * index, seed=index) for index in range(4)]
    alone = [all_logits(tiny.rounded, ids) for ids in texts]
    caches = [new_cache(tiny.rounded) for _ in texts]
    for start, end in ((0, 1), (1, 18), (18, 19), (19, 22), (22, 40)):
        batch = [
            SequenceInput(cache, ids[start:end], all_logits=True)
            for cache, ids in zip(caches, texts, strict=True)
        ]
        with torch.inference_mode():
            parts = tiny.rounded._forward.run(batch)
        for part, expected in zip(parts, alone, strict=True):
            assert torch.equal(part.float(), expected[start:end])


@cases(turning(True))
def test_texts_that_grow_beyond_a_trained_length(tiny: TinyModel) -> None:
    """All of their positions turn: what was read before is read again, not mixed."""
    ids, random = tiny.ids(120), torch.Generator().manual_seed(1)
    cold = {}
    for length in (1, 10, 19, 20, 21, 22, 60, 120):
        tiny.rounded.clear_cache()
        cold[length] = tiny.rounded.logits(ids[:length])
    for index in torch.randint(len(cold), (30,), generator=random).tolist():
        length = list(cold)[index]
        assert torch.equal(tiny.rounded.logits(ids[:length]), cold[length])
