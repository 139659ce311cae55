"""Tools on the command line. The scripted engine repeats the question, and so makes its calls."""

import json
from pathlib import Path
from typing import Any

import pytest
from support.worlds import make_world

from llmchat import cli

CALL = '<tool_call>{"name": "clock", "arguments": {"date": "2026-12-24"}}</tool_call>'


def chat(home: Path, *arguments: str, **env: str) -> tuple[int, str, str]:
    world = make_world(home, **env)
    code = cli.main(["chat", "--engine", "scripted", *arguments, CALL], world)
    return code, world.stdout.getvalue(), world.stderr.getvalue()  # type: ignore[attr-defined]


def calls(home: Path, *arguments: str, **env: str) -> list[dict[str, Any]]:
    code, out, _ = chat(home, "-T", "clock", "--json", *arguments, **env)
    assert code == 0
    found: list[dict[str, Any]] = json.loads(out)["tool_calls"]
    return found


def test_in_a_pipe_no_tool_runs_without_leave(tmp_path: Path) -> None:
    (call, *_) = calls(tmp_path)
    assert (call["name"], call["arguments"]) == ("clock", {"date": "2026-12-24"})
    assert call["allowed"] is False and "did not allow" in call["result"]


def test_a_named_tool_runs_in_a_pipe(tmp_path: Path) -> None:
    (call, *_) = calls(tmp_path, "--allow", "clock")
    assert call["allowed"] and "Thursday" in call["result"]
    assert call["seconds"] >= 0 and call["error"] == ""


def test_a_setting_may_allow_a_tool_that_only_reads(tmp_path: Path) -> None:
    (call, *_) = calls(tmp_path, LLMCHAT_ALLOW="clock,calculator")
    assert call["allowed"]


def test_leave_for_ever_does_not_count_in_a_pipe(tmp_path: Path) -> None:
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "allowed-tools.toml").write_text('[[allow]]\ntool = "clock"\n')
    assert calls(tmp_path)[0]["allowed"] is False


def test_a_setting_turns_tools_on(tmp_path: Path) -> None:
    _, out, _ = chat(tmp_path, "--json", LLMCHAT_TOOL="clock", LLMCHAT_ALLOW="clock")
    assert json.loads(out)["tool_calls"][0]["allowed"]


def test_calls_are_noted_on_stderr_and_the_answer_alone_is_on_stdout(tmp_path: Path) -> None:
    _, out, err = chat(tmp_path, "-T", "clock", "--allow", "clock")
    assert 'tool 1: clock(date="2026-12-24")' in err
    assert "tool" not in out.replace("tool_call", "")


def test_without_tools_a_call_is_text(tmp_path: Path) -> None:
    _, out, _ = chat(tmp_path)
    assert CALL in out


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (("-T", "clok"), "there is no tool `clok`"),
        (("-T", "clock", "--allow", "files"), "there is no tool `files` in use"),
        (("-T", "clock", "--max-rounds", "0"), "--max-rounds must be a whole number"),
        (("-T", "clock", "--root", "/nowhere"), "/nowhere is not a folder"),
        (("--mcp", "missing.json"), "missing.json"),
    ],
)
def test_a_wrong_option_is_one_line(arguments: tuple[str, ...], line: str, tmp_path: Path) -> None:
    code, out, err = chat(tmp_path, *arguments)
    assert (code, out) == (2, "") and line in err


def test_the_list_names_each_tool_once(tmp_path: Path) -> None:
    world = make_world(tmp_path)
    assert cli.main(["chat", "-T", "list"], world) == 0
    names = [line.split()[0] for line in world.stdout.getvalue().splitlines()]  # type: ignore[attr-defined]
    assert {"clock", "calculator"} <= set(names) and len(names) == len(set(names))
