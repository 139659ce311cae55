"""Every family in fp32 against transformers, and in int8 against fp32."""

import pytest
import torch
from support.architectures import generate, greedy
from support.family_engines import (
    TinyModel,
    all_expected,
    all_logits,
    divergence,
    executor,
    expected_logits,
    new_cache,
)
from support.family_lists import COMPILED, NOT_COMPILED, NOT_PLANNED, cases, compiler
from support.tiny_families import CASES

from llmchat.engines.transformers.checkpoint_names import modern_config
from llmchat.engines.transformers.families import has_plan

pytestmark = pytest.mark.usefixtures("one_thread")
# Before, at and behind the lengths of windows, chunks and trained positions.
LENGTHS = (1, 7, 8, 9, 16, 19, 20, 21, 33, 40)


def test_the_list_of_families_without_a_plan_is_honest() -> None:
    """Whoever plans a family removes its cases from NOT_PLANNED in support/family_lists.py."""
    known = {name: case for name, case in CASES.items() if case.is_known}
    configs = {name: modern_config(case.config().to_dict()) for name, case in known.items()}
    assert {name for name, config in configs.items() if not has_plan(config)} == NOT_PLANNED


@cases(CASES)
def test_planned_families_run_on_our_executors(tiny: TinyModel) -> None:
    assert executor(tiny.exact) == ("modules" if tiny.name in NOT_PLANNED else "torch")


@compiler
@cases(CASES)
def test_int8_runs_on_the_compiled_step(tiny: TinyModel) -> None:
    planned = "torch" if tiny.name in NOT_COMPILED else "compiled"
    assert executor(tiny.rounded) == ("modules" if tiny.name in NOT_PLANNED else planned)


@cases(CASES)
def test_greedy_tokens_are_those_of_transformers(tiny: TinyModel) -> None:
    for length in (14, 40):
        ids = tiny.ids(length)
        expected = generate(tiny.reference, ids)
        assert greedy(tiny.exact, ids) == expected
    assert len(set(expected)) > 2, "a model that repeats itself would prove little"


@cases(CASES)
def test_logits_are_those_of_transformers(tiny: TinyModel) -> None:
    for length in LENGTHS if tiny.turns or tiny.reference.config.is_encoder_decoder else (1, 9):
        ids = tiny.ids(length)
        expected = expected_logits(tiny.reference, ids)
        torch.testing.assert_close(tiny.exact.logits(ids), expected, rtol=1e-4, atol=1e-4)
    if not tiny.turns and not tiny.reference.config.is_encoder_decoder:
        ids = tiny.ids(100)
        expected = all_expected(tiny.reference, ids)
        torch.testing.assert_close(all_logits(tiny.exact, ids), expected, rtol=1e-4, atol=1e-4)


@compiler
@cases(COMPILED)
def test_int8_diverges_little_from_fp32(tiny: TinyModel) -> None:
    if tiny.turns or tiny.reference.config.is_encoder_decoder:
        texts = [tiny.ids(length, seed) for seed in range(4) for length in LENGTHS]
        exact = torch.stack([expected_logits(tiny.reference, ids) for ids in texts])
        near = torch.stack([tiny.rounded.logits(ids).float() for ids in texts])
    else:
        ids = tiny.ids(200)
        exact, near = all_expected(tiny.reference, ids), all_logits(tiny.rounded, ids)
    assert divergence(exact, near) <= 2e-3


@compiler
@cases(COMPILED)
def test_tokens_read_in_pieces_have_the_same_logits_to_the_bit(tiny: TinyModel) -> None:
    """A sample of test_family_rows.py."""
    ids = tiny.ids()
    expected = all_logits(tiny.rounded, ids)
    cache = new_cache(tiny.rounded)
    for start, end in ((0, 7), (7, 8), (8, 33), (33, 40)):
        assert torch.equal(all_logits(tiny.rounded, ids[start:end], cache), expected[start:end])
