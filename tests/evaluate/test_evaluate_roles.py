"""`--role` of evaluate and compare: models are asked in the words of a role."""

import json
from pathlib import Path
from typing import Any

import pytest
from support.worlds import make_world

from llmchat.cli import main


@pytest.fixture
def home(tmp_path: Path) -> Path:
    folder = tmp_path / "config" / "roles"
    folder.mkdir(parents=True)
    (folder / "asks.toml").write_text(
        'system = "Be brief."\nprompt = "Please: $input"\nmodel = "alpaca-7b"\n'
        "[sampling]\nmax_tokens = 4\n"
    )
    (folder / "looping.toml").write_text('turns = ["Again."]')
    return tmp_path


def run(home: Path, *arguments: str) -> tuple[int, Any, str]:
    world = make_world(home)
    code = main([*arguments, "--engine", "scripted", "--json", "-q"], world)
    out, err = world.stdout.getvalue(), world.stderr.getvalue()  # type: ignore[attr-defined]
    return code, json.loads(out) if out else None, err


def test_compare_asks_in_the_words_of_the_role(home: Path) -> None:
    code, plain, _ = run(home, "compare", "-m", "smollm2", "hello")
    assert code == 0 and "> hello" in plain["prompts"][0]["answers"][0]["text"]
    arguments = ("compare", "-m", "smollm2", "hello", "--role", "asks")
    _, found, _ = run(home, *arguments, "--max-tokens", "300")
    (answer,) = found["prompts"][0]["answers"]
    assert "> Please: hello" in answer["text"] and answer["model"] == "smollm2"
    assert answer["prompt_tokens"] > plain["prompts"][0]["answers"][0]["prompt_tokens"]


def test_sampling_of_a_role_goes_before_defaults_and_flags_before_it(home: Path) -> None:
    arguments = ("compare", "-m", "smollm2", "hello", "--role", "asks")
    _, short, _ = run(home, *arguments)
    assert short["prompts"][0]["answers"][0]["reply_tokens"] == 4
    _, longer, _ = run(home, *arguments, "--max-tokens", "6")
    assert longer["prompts"][0]["answers"][0]["reply_tokens"] == 6


def test_evaluate_asks_each_item_in_the_words_of_the_role(home: Path) -> None:
    tasks = home / "tasks.jsonl"
    tasks.write_text('{"prompt": "hello", "answer": "Please: hello", "kind": "contains"}\n')
    arguments = ("evaluate", "-m", "smollm2", "--tasks", str(tasks), "--max-tokens", "300")
    assert run(home, *arguments)[1]["items"][0]["score"] == 0
    code, found, _ = run(home, *arguments, "--role", "asks")
    assert code == 0 and found["items"][0]["score"] == 1


def test_results_of_another_role_are_not_kept(home: Path) -> None:
    tasks, output = home / "tasks.jsonl", home / "out.jsonl"
    tasks.write_text('{"prompt": "hello", "answer": "hello"}\n')
    arguments = ("evaluate", "-m", "smollm2", "--tasks", str(tasks), "-o", str(output))
    run(home, *arguments)
    run(home, *arguments, "--resume", "--role", "asks")
    assert len(output.read_text().splitlines()) == 2


def test_roles_with_turns_and_tasks_of_the_harness_are_refused(home: Path) -> None:
    code, _, error = run(home, "compare", "-m", "smollm2", "hello", "--role", "looping")
    assert code == 2 and "`looping` has turns, which an evaluation does not support" in error
    code, _, error = run(home, "evaluate", "-m", "smollm2", "--harness", "x", "--role", "asks")
    assert code == 2 and error.startswith("error: --role is for --tasks\n")
