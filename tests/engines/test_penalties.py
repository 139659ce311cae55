"""Bias, repetition, frequency, presence and DRY against straightforward implementations."""

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from torch import Tensor

from llmchat.engines import Sampling
from llmchat.engines.transformers.dry import Dry
from llmchat.engines.transformers.pytorch.cuda.sampling import DeviceSampler
from llmchat.engines.transformers.pytorch.penalties import Penalties
from llmchat.engines.transformers.pytorch.sampler import Sampler
from llmchat.errors import UsageError

CPU = torch.device("cpu")
# A vocabulary of few tokens, so that texts repeat; some contain a breaker or a part of one.
PIECES = [b"a", b"b", b"c", b"d ", b"e\n", b":", b"x<", b"|y", b' "q', b"z"]


def spelling(token: int) -> bytes:
    return PIECES[token]


def dry_by_definition(text: Sequence[int], sampling: Sampling) -> dict[int, float]:
    """For each earlier place, compare backwards token by token."""
    breakers = [one.encode() for one in sampling.dry_sequence_breakers]
    allowed, found = sampling.dry_allowed_length, dict[int, int]()
    for place in range(len(text) - 1):
        length = 0
        while (
            length <= place
            and text[place - length] == text[-1 - length]
            and not ends_a_breaker(text[: len(text) - length], breakers)
        ):
            length += 1
        if length >= allowed:
            found[text[place + 1]] = max(length, found.get(text[place + 1], 0))
    return {
        token: sampling.dry_multiplier * sampling.dry_base ** (length - allowed)
        for token, length in found.items()
        if not any(breaker in PIECES[token] for breaker in breakers)
    }


def ends_a_breaker(text: Sequence[int], breakers: list[bytes]) -> bool:
    """Whether the last token contains a breaker or the end of one."""
    before, last = b"".join(map(spelling, text[:-1])), spelling(text[-1])
    return any(
        (before + last).rfind(one) + len(one) > len(before)
        for one in breakers
        if one in before + last
    )


TEXTS = st.lists(st.integers(0, len(PIECES) - 1), max_size=40)
DRY_SAMPLINGS = st.builds(
    Sampling,
    dry_multiplier=st.sampled_from([0.8, 1.5]),
    dry_base=st.sampled_from([1.0, 1.75, 2.0]),
    dry_allowed_length=st.integers(1, 4),
    dry_sequence_breakers=st.sampled_from([(), ("\n", ":", '"'), ("<|", "\n"), ("<|y", "z")]),
)


@settings(max_examples=400)
@given(TEXTS, TEXTS, DRY_SAMPLINGS)
def test_dry_equals_its_definition(
    prompt: list[int], answer: list[int], sampling: Sampling
) -> None:
    dry = Dry(sampling, prompt, spelling)
    for end in range(len(answer) + 1):
        expected = dry_by_definition([*prompt, *answer[:end]], sampling)
        assert dry.penalties() == pytest.approx(expected)
        if end < len(answer):
            dry.feed(answer[end])


def test_dry_limits_its_exponent_and_reads_long_repetitive_prompts_quickly() -> None:
    """A comparison of each pair of places would take minutes."""
    sampling = Sampling(dry_multiplier=1, dry_base=2.0, dry_allowed_length=2)
    dry = Dry(sampling, [0] * 200_000, spelling)
    most = {0: 2.0 ** int(88.7228391 / math.log(2))}
    assert dry.penalties() == most
    dry.feed(0)
    assert dry.penalties() == most


def changed_by_definition(
    logits: Tensor, prompt: list[int], answer: list[int], sampling: Sampling
) -> list[float]:
    """Each logit by itself, in the order that the struct names."""
    counts, seen = Counter(answer), {*prompt, *answer}
    dry = dry_by_definition([*prompt, *answer], sampling) if sampling.dry_multiplier else {}
    changed = []
    for token, logit in enumerate(logits.tolist()):
        logit += sampling.logit_bias.get(token, 0.0)
        if token in seen:
            penalty = sampling.repetition_penalty
            logit = logit / penalty if logit > 0 else logit * penalty
        if counts[token]:
            logit -= counts[token] * sampling.frequency_penalty + sampling.presence_penalty
        changed.append(logit - dry.get(token, 0.0))
    return changed


SAMPLINGS = st.builds(
    Sampling,
    logit_bias=st.dictionaries(st.integers(0, 9), st.floats(-100, 100, width=32), max_size=3),
    repetition_penalty=st.sampled_from([1.0, 1.3, 0.8]),
    frequency_penalty=st.sampled_from([0.0, 0.5, -1.5]),
    presence_penalty=st.sampled_from([0.0, 1.5, -0.5]),
    dry_multiplier=st.sampled_from([0.0, 0.8]),
)


def state(sampling: Sampling, prompt: list[int]) -> Dry | None:
    return Dry(sampling, prompt, spelling) if sampling.dry_multiplier else None


@settings(max_examples=200)
@given(TEXTS, TEXTS, SAMPLINGS, st.integers(0, 1000))
def test_logits_are_changed_as_defined(
    prompt: list[int], answer: list[int], sampling: Sampling, seed: int
) -> None:
    logits = 5 * torch.randn(10, generator=torch.Generator().manual_seed(seed))
    before = logits.clone()
    penalties = Penalties(sampling, prompt, CPU, state(sampling, prompt))
    for end in range(0, len(answer) + 1, 5):
        expected = changed_by_definition(logits, prompt, answer[:end], sampling)
        got = penalties.apply(logits).tolist()
        assert got == pytest.approx(expected, rel=1e-4, abs=1e-4)
        for token in answer[end : end + 5]:
            penalties.accept(token)
    assert torch.equal(logits, before), "log-probabilities are taken from the same row afterwards"


ALL = Sampling(
    temperature=0.9,
    seed=3,
    logit_bias={3: 4.0},
    repetition_penalty=1.1,
    frequency_penalty=0.7,
    presence_penalty=0.4,
)


def test_device_sampler_chooses_the_same_tokens() -> None:
    rows = 3 * torch.randn(80, 10, generator=torch.Generator().manual_seed(4))
    plain = Sampler(ALL, [1, 2, 2], CPU)
    device = DeviceSampler(ALL, [1, 2, 2], CPU, lambda token: None)
    assert [plain.choose(row) for row in rows] == [device.choose(row) for row in rows]


def test_a_token_chosen_elsewhere_counts() -> None:
    row = torch.tensor([1.0, 0.5, 0.0])
    sampler = Sampler(Sampling(temperature=0, frequency_penalty=0.6), [0, 0], CPU)
    assert sampler.choose(row) == 0, "the prompt does not count"
    sampler.record(1)
    assert [sampler.choose(row) for _ in range(3)] == [0, 2, 1]
    forced = Sampler(Sampling(temperature=0, frequency_penalty=0.6), [], CPU)
    forced.record(0)
    assert forced.choose(row) == 1, "a token before the first logits"


@pytest.mark.parametrize(
    ("bias", "expected"), [({2: 100.0}, 2), ({0: -100.0}, 1), ({0: -100.0, 1: -100.0}, 2)]
)
def test_bias_forces_and_forbids(bias: dict[int, float], expected: int) -> None:
    row = torch.tensor([9.0, 5.0, 0.0])
    for temperature in (0, 1):
        sampling = Sampling(temperature=temperature, logit_bias=bias, seed=1)
        assert {Sampler(sampling, [], CPU).choose(row) for _ in range(20)} == {expected}


def test_bias_of_an_unknown_token_is_an_error() -> None:
    sampler = Sampler(Sampling(logit_bias={10: 1.0}), [], CPU)
    with pytest.raises(UsageError, match="there is no token 10; the model has 10 tokens"):
        sampler.choose(torch.zeros(10))


@pytest.mark.parametrize(
    "change",
    [
        {"logit_bias": {1: 1.0}},
        {"repetition_penalty": 1.1},
        {"frequency_penalty": 0.1},
        {"presence_penalty": 0.1},
        {"dry_multiplier": 0.8},
    ],
    ids=str,
)
def test_penalties_are_used_only_if_one_is_on(change: dict[str, Any]) -> None:
    off = Sampling(dry_base=2.0, dry_allowed_length=5)
    assert Sampler(off, [1], CPU)._penalties is None
    assert Sampler(replace(off, **change), [1], CPU)._penalties is not None
