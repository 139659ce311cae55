"""Sampling in torch against transformers, and against the probabilities it must have."""

import pytest
import torch
from transformers import (
    MinPLogitsWarper,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from llmchat.engines import Sampling
from llmchat.engines.transformers.pytorch.penalties import penalise
from llmchat.engines.transformers.pytorch.sampler import Sampler, probabilities

CPU = torch.device("cpu")
LOGITS = torch.tensor([2.0, 1.0, 0.5, 0.0, -1.0, -3.0])


@pytest.mark.parametrize(
    "sampling",
    [
        Sampling(temperature=0.7),
        Sampling(temperature=1, top_k=3),
        Sampling(temperature=1, top_p=0.8),
        Sampling(temperature=1.3, top_k=5, top_p=0.9),
        Sampling(temperature=1, min_p=0.2),
        Sampling(temperature=0.5, top_k=4, top_p=0.95, min_p=0.05),
        Sampling(temperature=1, top_p=0.01),
        Sampling(temperature=1, top_k=1),
    ],
)
def test_probabilities_equal_those_of_transformers(sampling: Sampling) -> None:
    torch.manual_seed(0)
    for logits in (LOGITS, torch.randn(200) * 3):
        scores = TemperatureLogitsWarper(float(sampling.temperature))(None, logits[None])
        if sampling.top_k:
            scores = TopKLogitsWarper(sampling.top_k)(None, scores)
        if sampling.top_p < 1:
            scores = TopPLogitsWarper(sampling.top_p)(None, scores)
        if sampling.min_p:
            scores = MinPLogitsWarper(sampling.min_p)(None, scores)
        torch.testing.assert_close(probabilities(logits, sampling), scores.softmax(-1)[0])


def test_tokens_follow_their_probabilities() -> None:
    """Chi-square of 4,000 draws of a fixed seed, 5 degrees of freedom, 99.9 % quantile."""
    sampling = Sampling(temperature=1, seed=1)
    sampler = Sampler(sampling, [], CPU)
    draws = torch.bincount(torch.tensor([sampler.choose(LOGITS) for _ in range(4000)]), minlength=6)
    expected = probabilities(LOGITS, sampling) * 4000
    assert float(((draws - expected) ** 2 / expected).sum()) < 20.5


def test_greedy_takes_the_most_likely_token_unless_it_is_penalised() -> None:
    assert Sampler(Sampling(temperature=0), [], CPU).choose(LOGITS) == 0
    penalised = Sampler(Sampling(temperature=0, repetition_penalty=3.0), [0], CPU)
    assert [penalised.choose(LOGITS) for _ in range(2)] == [1, 0]


def test_repetition_penalty_equals_that_of_transformers() -> None:
    seen = torch.tensor([[1, 4, 4]])
    expected = RepetitionPenaltyLogitsProcessor(1.2)(seen, LOGITS[None].clone())[0]
    mask = torch.tensor([token in (1, 4) for token in range(6)])
    torch.testing.assert_close(penalise(LOGITS, mask, 1.2), expected)
