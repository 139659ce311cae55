"""Sampling in llama.cpp: its penalties by our definitions, and budgets of thinking."""

from collections import Counter
from typing import Any

import pytest
from support.engine_contract import answer

from llmchat.engines import Sampling
from llmchat.engines.gguf import GgufEngine, _request
from llmchat.engines.transformers.dry import Dry
from llmchat.prompt import Prompt, ThinkingMarks

pytest.importorskip("xllamacpp")

REPETITIVE = "one two three four five: one two three four five\n" * 3 + "one two"
MARKS = ThinkingMarks("<think>", "</think>")
INSIDE = ThinkingMarks("<think>", "</think>", inside=True)
THOUGHTS = "<think> a b c d e f g h i j k l m n</think> yes\n" * 4


def steps(engine: GgufEngine, text: str, sampling: Sampling) -> list[tuple[int, dict[int, float]]]:
    """Each token of a greedy answer, and the log-probabilities before any penalty."""
    ids = engine.encode(Prompt(text, (), bos=False))
    request = _request(ids, sampling, 0, 24) | {"n_probs": 200}
    found: list[tuple[int, dict[int, float]]] = []
    with engine._llama().complete(request) as events:
        for event in events:
            for one in event.get("completion_probabilities", ()):
                likeliest = {each["id"]: each["logprob"] for each in one["top_logprobs"]}
                found.append((one["id"], likeliest))
            if event.get("stop"):
                break
    return found


def follow(engine: GgufEngine, sampling: Sampling, changes: Any) -> int:
    """Assert that each token is the likeliest one after our changes; returns how many were not the
    likeliest before.
    """
    text, changed = engine.encode(Prompt(REPETITIVE, (), bos=False)), 0
    for token, likeliest in steps(engine, REPETITIVE, sampling):
        subtracted = changes(text)
        best = max(likeliest, key=lambda one: likeliest[one] - subtracted.get(one, 0.0))
        assert token == best
        changed += token != max(likeliest, key=likeliest.__getitem__)
        text.append(token)
    return changed


@pytest.mark.parametrize(
    "sampling",
    [
        Sampling(temperature=0, dry_multiplier=0.8),
        Sampling(temperature=0, dry_multiplier=3, dry_base=1.2, dry_allowed_length=3),
        Sampling(
            temperature=0,
            dry_multiplier=4,
            dry_allowed_length=1,
            dry_sequence_breakers=("three",),
        ),
        Sampling(temperature=0, dry_multiplier=2, dry_sequence_breakers=()),
    ],
    ids=["usual", "slow", "words", "none"],
)
def test_dry_of_llama_cpp_is_ours(smol_engine: GgufEngine, sampling: Sampling) -> None:
    spelling = smol_engine.tokens.spelling
    changed = follow(smol_engine, sampling, lambda text: Dry(sampling, text, spelling).penalties())
    assert changed, "the penalty has an effect"


def test_penalties_of_llama_cpp_count_the_prompt_too(smol_engine: GgufEngine) -> None:
    """As its server does for everybody; docs/sampling.md says so."""
    sampling = Sampling(temperature=0, frequency_penalty=0.7, presence_penalty=0.5)

    def changes(text: list[int]) -> dict[int, float]:
        return {token: 0.7 * count + 0.5 for token, count in Counter(text).items()}

    assert follow(smol_engine, sampling, changes)


def test_bias_forbids_a_token(smol_engine: GgufEngine) -> None:
    first, _ = steps(smol_engine, REPETITIVE, Sampling(temperature=0))[0]
    sampling = Sampling(temperature=0, logit_bias={first: -100})
    assert first not in [token for token, _ in steps(smol_engine, REPETITIVE, sampling)]


@pytest.mark.parametrize("budget", [0, 3, 7])
def test_a_thought_that_the_prompt_begins_has_a_budget(
    smol_engine: GgufEngine, budget: int
) -> None:
    asked = Prompt(THOUGHTS + "<think>", (), bos=False, thinking=INSIDE)
    limited = Sampling(temperature=0, max_tokens=16, think_budget=budget)
    texts, finish = answer(smol_engine, asked, limited)
    thought, mark, rest = "".join(texts).partition("</think>")
    assert thought == " a b c d e f g"[: 2 * budget] and mark and rest
    assert finish.prompt_tokens == len(smol_engine.encode(asked)) and finish.reply_tokens == 16
    assert finish.reason == "length"


def test_a_thought_within_its_budget_is_not_changed(smol_engine: GgufEngine) -> None:
    asked = Prompt(THOUGHTS + "<think>", (), bos=False, thinking=INSIDE)
    free = answer(smol_engine, asked, Sampling(temperature=0, max_tokens=28))[0]
    assert "</think>" in "".join(free)
    for budget in (25,):
        sampling = Sampling(temperature=0, max_tokens=28, think_budget=budget)
        assert "".join(answer(smol_engine, asked, sampling)[0]) == "".join(free)


@pytest.mark.parametrize("budget", [2, 5])
def test_a_thought_that_the_answer_begins_has_a_budget(
    smol_engine: GgufEngine, budget: int
) -> None:
    asked = Prompt(THOUGHTS, (), bos=False, thinking=MARKS)
    limited = Sampling(temperature=0, max_tokens=14, think_budget=budget)
    text = "".join(answer(smol_engine, asked, limited)[0])
    assert text.startswith("<think>" + " a b c d e"[: 2 * budget] + "</think>"), text
