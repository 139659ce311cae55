"""`llmchat roles`, and --role of batch and prompt."""

import json
import tomllib
from pathlib import Path

import pytest
from support.worlds import make_world

from llmchat.cli import main
from llmchat.roles import find_role


@pytest.fixture
def own(tmp_path: Path) -> Path:
    folder = tmp_path / "config" / "roles"
    folder.mkdir(parents=True)
    (folder / "mine.toml").write_text('about = "Mine."\nprompt = "To $language: $input"\n')
    return folder


def run(home: Path, *arguments: str, stdin: str = "", **env: str) -> tuple[int, str, str]:
    world = make_world(home, stdin, **env)
    code = main([*arguments], world)
    return code, world.stdout.getvalue(), world.stderr.getvalue()  # type: ignore[attr-defined]


def test_list_names_every_role_and_every_broken_file(own: Path, tmp_path: Path) -> None:
    (own / "bad.toml").write_text("promt = 1")
    code, out, err = run(tmp_path, "roles", "list")
    assert code == 0 and "mine\tMine.\town\n" in out and "translate\t" in out
    assert f"note: {own}/bad.toml: there is no key `promt` in a role" in err
    rows = json.loads(run(tmp_path, "roles", "list", "--json")[1])
    assert {
        "name": "mine", "about": "Mine.", "values": {"language": None}, "origin": "own",
    } in rows  # fmt: skip
    assert "translate" in run(tmp_path, "roles", "list", "-q")[1].split()


def test_show_prints_the_file_or_its_values(own: Path, tmp_path: Path) -> None:
    code, out, err = run(tmp_path, "roles", "show", "mine")
    assert (code, out, err) == (0, (own / "mine.toml").read_text(), f"# {own}/mine.toml\n")
    shown = json.loads(run(tmp_path, "roles", "show", "mine", "--json")[1])
    assert shown["prompt"] == "To $language: $input"
    assert (
        "error: there is no role `min`\nhint: did you mean `mine`"
        in (run(tmp_path, "roles", "show", "min")[2])
    )


@pytest.fixture
def editor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The text that the user's editor leaves, where there is one."""
    text = tmp_path / "edited.toml"
    script = tmp_path / "editor.sh"
    lines = ("#!/bin/sh", f'cp "$1" {tmp_path}/began', f'[ -f {text} ] && cp {text} "$1"', "true")
    script.write_text("\n".join(lines))
    script.chmod(0o755)
    monkeypatch.setenv("VISUAL", str(script))
    return text


def test_edit_writes_a_new_role_and_a_copy_of_one_of_llmchat(
    own: Path, tmp_path: Path, editor: Path
) -> None:
    editor.write_text('prompt = "x"\n')
    code, _, err = run(tmp_path, "roles", "edit", "fresh")
    assert code == 0 and f"saved to {own}/fresh.toml" in err
    assert find_role("fresh", own).prompt == "x"
    assert tomllib.loads((tmp_path / "began").read_text())["prompt"] == "$input"
    run(tmp_path, "roles", "edit", "translate")
    assert "You are a translator." in (tmp_path / "began").read_text()
    assert find_role("translate", own).prompt == "x"


def test_edit_keeps_an_invalid_role_and_reports_the_error(
    own: Path, tmp_path: Path, editor: Path
) -> None:
    editor.write_text("promt = 1\n")
    code, _, err = run(tmp_path, "roles", "edit", "fresh")
    assert code == 2 and "there is no key `promt` in a role" in err
    assert "`llmchat roles edit fresh` corrects it" in err
    assert (own / "fresh.toml").read_text() == "promt = 1\n"


def test_edit_without_a_change_writes_nothing(own: Path, tmp_path: Path, editor: Path) -> None:
    assert run(tmp_path, "roles", "edit", "fresh") == (0, "", "nothing changed\n")
    assert not (own / "fresh.toml").exists()
    assert "invalid role name `a/b`" in run(tmp_path, "roles", "edit", "a/b")[2]
    assert "invalid role name `off`" in run(tmp_path, "roles", "edit", "off")[2]


def test_batch_asks_in_the_words_of_a_role(own: Path, tmp_path: Path) -> None:
    source = tmp_path / "in.jsonl"
    source.write_text('{"prompt": "Wo?", "language": "French"}\n"Da!"\n')
    code, out, _ = run(tmp_path, "batch", str(source), "--engine", "scripted", "--role", "mine")
    first, second = map(json.loads, out.splitlines())
    assert code == 1 and "> To French: Wo?" in first["text"]
    assert second["error"]["message"] == "the role `mine` requires a value for language"
    spec = "mine language=Dutch"
    _, out, _ = run(tmp_path, "batch", str(source), "--engine", "scripted", "--role", spec)
    assert "> To Dutch: Da!" in json.loads(out.splitlines()[1])["text"]


def test_answers_in_other_words_are_not_mixed(own: Path, tmp_path: Path) -> None:
    source, target = tmp_path / "in.jsonl", str(tmp_path / "out.jsonl")
    source.write_text('"Wo?"\n')
    command = ("batch", str(source), "-o", target, "--engine", "scripted", "--role")
    assert run(tmp_path, *command, "mine language=a")[0] == 0
    assert "other settings" in run(tmp_path, *command, "mine language=b")[2]


def test_batch_refuses_a_role_of_several_turns(own: Path, tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_text('"x"\n')
    (own / "calc.toml").write_text('tools = ["calculator"]\ndocs = ["notes"]')
    command = ("batch", str(tmp_path / "in.jsonl"), "--engine", "scripted", "--role")
    assert (
        "the role `refine` has turns, which a batch does not support"
        in run(tmp_path, *command, "refine")[2]
    )
    assert "the role `calc` has tools and docs" in run(tmp_path, *command, "calc")[2]


def test_prompt_shows_what_a_role_makes_of_the_last_question(own: Path, tmp_path: Path) -> None:
    messages = json.dumps([{"role": "user", "content": "Wo?"}])
    _, out, _ = run(
        tmp_path, "prompt", "-m", "alpaca-7b", "--role", "translate language=French", stdin=messages
    )
    assert "### Instruction:\nTranslate this text into French:\n\nWo?\n" in out
    assert "You are a translator." in out
