"""`llmchat chat --role`: what the model is asked, and what a session keeps."""

import json
from pathlib import Path
from typing import Any

import pytest
from support.worlds import make_world

from llmchat.cli import main
from llmchat.history import History

DEMO = ("--engine", "scripted", "--json", "-q")


def ask(home: Path, *arguments: str, stdin: str = "", **env: str) -> dict[str, Any]:
    """The answer of the scripted engine, which quotes the question."""
    world = make_world(home, stdin, **env)
    code = main(["chat", *DEMO, *arguments], world)
    assert code == 0, world.stderr.getvalue()  # type: ignore[attr-defined]
    return json.loads(world.stdout.getvalue())  # type: ignore[attr-defined, no-any-return]


def asked(answer: dict[str, Any]) -> str:
    """The question that an answer quotes."""
    lines = [line[2:] for line in answer["text"].splitlines() if line.startswith("> ")]
    return "\n".join(lines)


def fails(home: Path, *arguments: str, **env: str) -> str:
    world = make_world(home, **env)
    assert main(["chat", *DEMO, *arguments], world) != 0
    return world.stderr.getvalue()  # type: ignore[attr-defined, no-any-return]


@pytest.fixture
def home(tmp_path: Path) -> Path:
    folder = tmp_path / "config" / "roles"
    folder.mkdir(parents=True)
    (folder / "bare.toml").write_text('system = "Be brief."\nprompt = "Look at this."')
    (folder / "macro.toml").write_text('once = true\nturns = ["Criticise.", "Again: $input"]')
    return tmp_path


def test_prompt_is_put_around_a_prompt_and_around_piped_text(home: Path) -> None:
    spec = "translate language=French"
    assert asked(ask(home, "--role", spec, "Wo?")) == "Translate this text into French:\n\nWo?"
    piped = ask(home, "--role", spec, stdin="Da!")
    assert asked(piped) == "Translate this text into French:\n\nDa!"


def test_system_text_and_sampling_come_from_the_role(home: Path) -> None:
    ledger = ask(home, "--role", "bare", "x")["window"]["ledger"]
    assert ledger[0]["role"] == "system" and ledger[0]["start"] == "Be brief."
    ledger = ask(home, "--role", "bare", "-s", "Mine.", "x")["window"]["ledger"]
    assert ledger[0]["start"] == "Mine."


def test_piped_text_is_material_of_a_prompt_without_input(home: Path) -> None:
    ask(home, "--role", "bare", stdin="a diff")
    with History(home / "data" / "history.db") as history:
        session = history.latest()
        assert session
        question = history.conversation(session.id).spoken[0]
    assert (question.text, question.input) == ("Look at this.", "a diff")
    assert asked(ask(home, "--role", "bare", "")) == "Look at this."


def test_an_empty_pipe_is_not_a_question(home: Path) -> None:
    assert "there is no question: stdin is empty" in fails(home, "--role", "bare")


def test_role_comes_from_the_variable_and_off_uses_none(home: Path) -> None:
    assert asked(ask(home, "x", LLMCHAT_ROLE="bare")) == "Look at this.\n\nx"
    assert asked(ask(home, "--role", "off", "x", LLMCHAT_ROLE="bare")) == "x"


def test_role_goes_before_the_variables_of_its_options(home: Path) -> None:
    ledger = ask(home, "--role", "bare", "x", LLMCHAT_SYSTEM="Other.")["window"]["ledger"]
    assert ledger[0]["start"] == "Be brief."


def test_session_keeps_its_role_with_its_values(home: Path) -> None:
    ask(home, "--role", "translate language=French", "Wo?")
    again = asked(ask(home, "-c", "Da!", LLMCHAT_ROLE="bare"))
    assert again == "Translate this text into French:\n\nDa!"
    assert asked(ask(home, "-c", "--role", "off", "Hm?")) == "Hm?"
    assert asked(ask(home, "-c", "Hm?")) == "Hm?"


def test_session_whose_role_is_gone_goes_on_without_it(home: Path) -> None:
    ask(home, "--role", "bare", "x")
    (home / "config" / "roles" / "bare.toml").unlink()
    world = make_world(home)
    assert main(["chat", "--engine", "scripted", "-c", "y"], world) == 0
    assert (
        "note: this chat had the role `bare` and continues without it: there is no role `bare`"
        in (
            world.stderr.getvalue()  # type: ignore[attr-defined]
        )
    )


def test_session_before_a_role_is_not_given_one_by_a_variable(home: Path) -> None:
    ask(home, "x")
    assert asked(ask(home, "-c", "y", LLMCHAT_ROLE="bare")) == "y"


def test_turns_are_asked_one_after_the_other(home: Path) -> None:
    answer = ask(home, "--role", "macro", "Q")
    assert [asked(one) for one in answer["earlier"]] == ["Q", "Criticise."]
    assert asked(answer) == "Again: Q"
    # A session that goes on is past the first question.
    later = ask(home, "-c", "R")
    assert asked(later) == "R" and "earlier" not in later


def test_last_answer_of_the_turns_is_alone_on_stdout(home: Path) -> None:
    world = make_world(home)
    assert main(["chat", "--engine", "scripted", "--role", "macro", "Q"], world) == 0
    shown = world.stdout.getvalue()  # type: ignore[attr-defined]
    assert "> Again: Q" in shown and "Criticise" not in shown


def test_invalid_input_is_one_line_and_loads_no_model(home: Path) -> None:
    assert "error: there is no role `bar`\nhint: did you mean `bare`" in fails(
        home, "--role", "bar", "x"
    )
    assert "has no value `lang`" in fails(home, "--role", "translate lang=x", "x")
    (home / "config" / "roles" / "bad.toml").write_text("tools = ['nothing']")
    assert "error: there is no tool `nothing`" in fails(home, "--role", "bad", "x")
