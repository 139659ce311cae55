"""Sampling in C against sampling in torch."""

from collections.abc import Iterator

import pytest
import torch
from msgspec.structs import replace
from support.compiled_models import needs_compiler
from torch import Tensor

from llmchat.engines import Sampling
from llmchat.engines.guide.mask import mask_of
from llmchat.engines.transformers.compiled.kernels import Kernels
from llmchat.engines.transformers.compiled.sampler import CompiledSampler
from llmchat.engines.transformers.pytorch.sampler import Sampler, allowed, probabilities
from llmchat.errors import IntegrityError

pytestmark = needs_compiler
CPU = torch.device("cpu")
SAMPLINGS = [
    Sampling(temperature=0),
    Sampling(temperature=1),
    Sampling(temperature=0.7, top_p=0.9),
    Sampling(temperature=1.3, top_p=0.999),
    Sampling(temperature=1, top_k=1),
    Sampling(temperature=0.8, top_k=40),
    Sampling(temperature=1, min_p=0.05),
    Sampling(temperature=2, min_p=0.00001),
    Sampling(temperature=0.9, top_k=50, top_p=0.95, min_p=0.02),
    Sampling(temperature=1, top_p=0.01),
    Sampling(temperature=1, top_k=5000),
]


def rows_of_logits() -> Iterator[Tensor]:
    """Peaked and flat ones, of lengths that fill no vector, with some tokens of probability 0."""
    generator = torch.Generator().manual_seed(0)
    for count in (1, 7, 16, 255, 1000, 5003):
        for spread in (0.1, 1.5, 5.0, 40.0):
            logits = spread * torch.randn(count, generator=generator)
            logits[count // 2 + 1 :: 3] = -torch.inf
            yield logits


@pytest.mark.parametrize("sampling", SAMPLINGS, ids=repr)
def test_candidates_have_the_probabilities_of_torch(compiled: Kernels, sampling: Sampling) -> None:
    for logits in rows_of_logits():
        token = CompiledSampler(sampling, [], CPU, compiled).choose(logits)
        if sampling.temperature == 0:
            assert token == int(logits.argmax())
            continue
        expected = probabilities(logits, sampling)
        assert float(expected[token]) > 0
        if found := compiled.candidates():
            ids, weights = torch.tensor([*found]), torch.tensor([*found.values()])
            got = torch.zeros(len(logits)).index_add(0, ids, weights)
            torch.testing.assert_close(got / got.sum(), expected, rtol=1e-3, atol=2e-5)


# With min-p alone, torch keeps the tokens in the order of their ids.
@pytest.mark.parametrize(
    "sampling", [one for one in SAMPLINGS if not one.min_p or one.top_k], ids=repr
)
def test_seed_gives_the_tokens_of_torch(compiled: Kernels, sampling: Sampling) -> None:
    """But for rounding: tokens of equal probability may be sorted in another order."""
    seeded = replace(sampling, seed=3, repetition_penalty=1.1)
    plain, own = Sampler(seeded, [1, 5], CPU), CompiledSampler(seeded, [1, 5], CPU, compiled)
    logits = 4 * torch.randn(400, 700, generator=torch.Generator().manual_seed(1))
    assert sum(plain.choose(row) == own.choose(row) for row in logits) >= 396


@pytest.mark.parametrize(
    "sampling",
    [
        Sampling(temperature=1, seed=1),
        Sampling(temperature=1, top_p=0.9, seed=1),
        Sampling(temperature=1, min_p=0.1, seed=1),
    ],
    ids=repr,
)
def test_tokens_follow_their_probabilities(compiled: Kernels, sampling: Sampling) -> None:
    """Chi-square of 4,000 draws of a fixed seed, 5 degrees of freedom, 99.9 % quantile."""
    logits = torch.tensor([2.0, 1.0, 0.5, 0.0, -1.0, -3.0])
    sampler = CompiledSampler(sampling, [], CPU, compiled)
    draws = torch.bincount(torch.tensor([sampler.choose(logits) for _ in range(4000)]), minlength=6)
    expected = probabilities(logits, sampling) * 4000
    assert int(draws[expected == 0].sum()) == 0
    some = expected > 0
    assert float(((draws - expected)[some] ** 2 / expected[some]).sum()) < 20.5


@pytest.mark.parametrize("sampling", SAMPLINGS, ids=repr)
@pytest.mark.parametrize("value", [-torch.inf, torch.inf, torch.nan])
def test_logits_without_a_finite_maximum_are_an_error(
    compiled: Kernels, sampling: Sampling, value: float
) -> None:
    """A token drawn from them would look like an answer."""
    for sampler in (CompiledSampler(sampling, [], CPU, compiled), Sampler(sampling, [], CPU)):
        with pytest.raises(IntegrityError, match="NaN or infinity"):
            sampler.choose(torch.full((20,), value))


@pytest.mark.parametrize("sampling", SAMPLINGS, ids=repr)
def test_masked_tokens_have_the_probabilities_of_torch(
    compiled: Kernels, sampling: Sampling
) -> None:
    for number, logits in enumerate(rows_of_logits()):
        count = len(logits)
        # Masks longer and shorter than the row, which is not changed.
        mask = mask_of(count + 40 * (number % 3) - 5, range(number % 7, count, 2 + number % 4))
        if mask.is_empty or not (kept := allowed(logits, mask)).isfinite().any():
            continue
        before = logits.clone()
        sampler = CompiledSampler(replace(sampling, seed=number), [], CPU, compiled)
        token = sampler.choose(logits, mask)
        assert torch.equal(logits, before)
        assert token in mask and token < mask.count
        expected = probabilities(kept, sampling) if sampling.temperature else kept == kept.max()
        assert float(expected[token]) > 0
        if found := compiled.candidates():
            ids, weights = torch.tensor([*found]), torch.tensor([*found.values()])
            got = torch.zeros(count).index_add(0, ids, weights)
            torch.testing.assert_close(got / got.sum(), expected, rtol=1e-3, atol=2e-5)


def test_a_mask_of_everything_changes_no_draw(compiled: Kernels) -> None:
    for sampling in SAMPLINGS:
        for logits in rows_of_logits():
            every = mask_of(len(logits), range(len(logits)))
            free, masked = (
                CompiledSampler(replace(sampling, seed=5), [], CPU, compiled) for _ in range(2)
            )
            assert [free.choose(logits) for _ in range(3)] == [
                masked.choose(logits, every) for _ in range(3)
            ]
