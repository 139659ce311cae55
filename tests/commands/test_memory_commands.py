"""`llmchat memory`, and the setting `memory` of `llmchat chat`."""

import json
from pathlib import Path

import pytest
from support.worlds import make_world

from llmchat.cli import main
from llmchat.settings import World


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path


def llmchat(home: Path, *arguments: str, **env: str) -> tuple[int, str, str]:
    """Run a command; returns its exit code, stdout and stderr."""
    world: World = make_world(home, **env)
    code = main(list(arguments), world)
    return code, world.stdout.getvalue(), world.stderr.getvalue()  # type: ignore[attr-defined]


def test_facts_are_added_listed_changed_and_removed(home: Path) -> None:
    assert llmchat(home, "memory", "add", "I live in Graz") == (0, "", "remembered as 1\n")
    llmchat(home, "memory", "add", "I have a dog")
    assert llmchat(home, "memory", "edit", "1", "I live in Linz")[2] == "fact 1 changed\n"
    assert llmchat(home, "memory", "list")[1] == "1\tI live in Linz\n2\tI have a dog\n"
    assert llmchat(home, "memory", "rm", "2")[2] == "1 fact forgotten\n"
    listed = json.loads(llmchat(home, "memory", "list", "--json")[1])
    assert [(one["id"], one["text"]) for one in listed] == [(1, "I live in Linz")]


def test_all_facts_are_removed_with_a_yes_alone(home: Path) -> None:
    llmchat(home, "memory", "add", "I live in Graz")
    code, _, error = llmchat(home, "memory", "rm", "--all")
    assert (code, error.splitlines()[0]) == (2, "error: nothing was forgotten")
    assert llmchat(home, "memory", "rm", "--all", "-y")[2] == "1 fact forgotten\n"
    assert llmchat(home, "memory", "list")[1] == ""


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("rm",), "`memory rm` takes numbers of facts, or --all"),
        (("rm", "1", "--all"), "`memory rm` takes numbers of facts, or --all"),
        (("rm", "5"), "there is no fact 5"),
        (("edit", "5", "x"), "there is no fact 5"),
        (("add", " "), "the fact is empty"),
    ],
)
def test_bad_input_is_one_line(home: Path, arguments: tuple[str, ...], message: str) -> None:
    code, out, error = llmchat(home, "memory", *arguments)
    assert (code, out, error.splitlines()[0]) == (2, "", f"error: {message}")


@pytest.mark.parametrize(
    ("flags", "env", "used"),
    [
        ((), {}, False),
        (("--memory",), {}, True),
        ((), {"LLMCHAT_MEMORY": "on"}, True),
        (("--no-memory",), {"LLMCHAT_MEMORY": "on"}, False),
    ],
)
def test_a_one_shot_uses_memory_where_it_is_on(
    home: Path, flags: tuple[str, ...], env: dict[str, str], used: bool
) -> None:
    llmchat(home, "memory", "add", "I live in Graz")
    chat = ("chat", "--engine", "scripted", "--json", *flags, "hello")
    code, out, _ = llmchat(home, *chat, **env)
    assert code == 0
    roles = [entry["role"] for entry in json.loads(out)["window"]["ledger"]]
    assert ("memory" in roles) == used
    assert "Graz" in out if used else "Graz" not in out


def test_an_unknown_use_is_one_line(home: Path) -> None:
    code, _, error = llmchat(home, "chat", "--engine", "scripted", "hi", LLMCHAT_MEMORY="maybe")
    assert code == 2
    assert error == "error: LLMCHAT_MEMORY must be off, on or propose, not `maybe`\n"
