"""A KV cache of 8 bits in every family: windows, latent attention, encoders, hybrids."""

import pytest
import torch
from support.compiled_models import needs_compiler
from support.family_engines import TinyModel, all_logits, divergence, new_cache
from support.family_lists import COMPILED, NOT_COMPILED, NOT_PLANNED, cases, compiler

from llmchat.errors import UsageError

pytestmark = [pytest.mark.slow, *needs_compiler]
LENGTH = 340


@compiler
@cases(name for name in COMPILED if "longrope" not in name and "dynamic" not in name)
def test_pieces_of_any_size(tiny: TinyModel) -> None:
    engine, ids = tiny.open(weights="int8", kv="int8"), tiny.ids(LENGTH)
    expected, usual = all_logits(engine, ids), all_logits(tiny.rounded, ids)
    assert divergence(usual, expected) < 2e-3
    for size in (1, 7, 64, 300):
        cache = new_cache(engine)
        for start in range(0, LENGTH, size):
            got = all_logits(engine, ids[start : start + size], cache)
            assert torch.equal(got, expected[start : start + size]), f"{size} tokens at {start}"


@cases(["llama", "mistral", "gemma3", "qwen3-next", "t5", *sorted(NOT_COMPILED)])
def test_torch_runs_it_too(tiny: TinyModel) -> None:
    engine, ids = tiny.open(weights="fp32", kv="int8"), tiny.ids(60)
    expected = all_logits(tiny.exact, ids)
    assert divergence(expected, all_logits(engine, ids)) < 2e-3


@cases(sorted(NOT_PLANNED)[:1])
def test_modules_of_transformers_are_refused(tiny: TinyModel) -> None:
    with pytest.raises(UsageError, match="--kv int8 is not supported for"):
        tiny.open(weights="int8", kv="int8")
