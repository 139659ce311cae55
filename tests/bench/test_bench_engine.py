"""Tests of benchmarks/engine.py: verdicts against targets, and the text the model repeats."""

import engine
import pytest
from engine import Findings, verdict
from engine_inside import WORDS_PER_EDIT, repeated_words

from llmchat.engines.tokenizer import Tokenizer
from llmchat.hub import find
from llmchat.presets import find as find_preset
from llmchat.prompt import Prompt
from llmchat.settings import World


@pytest.mark.parametrize(
    "sense, target, value, told",
    [
        (engine.LEAST, 1.2, 1.2, "met"),
        (engine.LEAST, 2.0, 1.5, "missed by 25%"),
        (engine.MOST, 2.5, 2.4, "met"),
        (engine.MOST, 0.5, 0.75, "missed by 50%"),
        (engine.MOST, None, 9.0, "-"),
    ],
)
def test_a_target_is_met_or_missed_by_so_much(
    sense: str, target: float | None, value: float, told: str
) -> None:
    assert verdict(sense, target, value) == told


def test_a_row_compares_says_why_not_and_keeps_its_runs(capsys: pytest.CaptureFixture[str]) -> None:
    findings = Findings("1b")
    findings.add("decode / llama.cpp Q8_0", 30.0, 12.0, runs=[29.0, 30.0, 31.0])
    findings.add("prefill / CTranslate2 int8", 400.0, None, why="ctranslate2 is not installed")
    assert findings.rows == [
        {
            "checkpoint": "1b", "row": "decode / llama.cpp Q8_0", "unit": "×", "sense": "≥",
            "target": 2.0, "ours": 30.0, "peer": 12.0, "value": 2.5,
            "verdict": "met", "runs": [29.0, 30.0, 31.0],
        },
        {
            "checkpoint": "1b", "row": "prefill / CTranslate2 int8", "unit": "×", "sense": "≥",
            "target": 1.3, "ours": 400.0,
            "verdict": "not measured: ctranslate2 is not installed",
        },
    ]  # fmt: skip
    first, second = capsys.readouterr().out.splitlines()
    assert first.split() == [
        "1b",
        "decode",
        "/",
        "llama.cpp",
        "Q8_0",
        "≥",
        "2",
        "×",
        "2.5",
        "×",
        "30",
        "12",
        "met",
    ]
    assert second.endswith("not measured: ctranslate2 is not installed")


def test_drafts_that_change_the_text_are_no_result(capsys: pytest.CaptureFixture[str]) -> None:
    findings, name = Findings("smol"), "decode of repeated text, drafts / none"
    engine.pair(
        findings,
        name,
        [
            ({"on": 90.0, "off": 30.0, "same": True}, ""),
            ({"on": 90.0, "off": 30.0, "same": False}, ""),
        ],
        "on",
        "off",
        {},
    )
    engine.pair(
        findings,
        name,
        [
            ({"on": 90.0, "off": 30.0, "same": True}, ""),
            ({"on": 70.0, "off": 40.0, "same": True}, ""),
        ],
        "on",
        "off",
        {},
    )
    engine.pair(findings, name, [], "on", "off", {engine.OURS: "it is too large"})
    assert [row["verdict"] for row in findings.rows] == [
        "not measured: the tokens differ with drafts on and off",
        "met",
        "not measured: it is too large",
    ]
    assert findings.rows[1]["value"] == 80 / 35


def test_a_broken_measurement_is_told_in_one_line() -> None:
    assert engine.attempt(lambda: 1 / 0) == (None, "ZeroDivisionError: division by zero")
    assert engine.attempt(lambda: 7) == (7, "")


def test_the_repeated_text_is_read_back_as_it_was_said(smol_world: World) -> None:
    folder = find(find_preset("smollm2").base, smol_world).path
    text, follow = repeated_words(folder)
    ids = Tokenizer(folder).encode(Prompt(text, ()))
    following = dict(follow)
    assert len(following) == len(follow), "one token follows each"
    said, token = [], ids[-1]
    for _ in range(120):
        token = following[token]
        said.append(token)
    # The output repeats the prompt from where its end left off, but replaces every twelfth word.
    again = ids[4:124]
    edits = sum(mine != theirs for mine, theirs in zip(said, again, strict=True))
    assert edits == 120 // WORDS_PER_EDIT
