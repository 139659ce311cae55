"""`llmchat sessions` in processes of their own, over the real default model."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from support.command_line import Run

pytestmark = pytest.mark.slow


@pytest.fixture
def session(smol: Run) -> Callable[..., dict]:  # type: ignore[type-arg]
    """Ask in a session; returns what --json says."""

    def ask(*arguments: str) -> dict:  # type: ignore[type-arg]
        done = smol("chat", "--json", *arguments)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)  # type: ignore[no-any-return]

    return ask


def test_from_chat_to_replay(smol: Run, session: Callable[..., dict], tmp_path: Path) -> None:  # type: ignore[type-arg]
    first = session("What is the capital of France?")
    session("-c", "--temperature", "0.7", "And of Italy?")
    name = first["session"]
    done = smol("sessions", "replay", name[:5], "--json")
    told = json.loads(done.stdout)
    assert (
        done.returncode == 0
        and told["changed"] == []
        and [one["same"] for one in told["answers"]] == [True, True]
    )
    changed = smol("sessions", "replay", name, LLMCHAT_WEIGHTS="fp32")
    assert "answer 1: the same" in changed.stdout

    assert smol("sessions", "rename", name, "Capitals").returncode == 0
    assert smol("sessions", "tag", name, "geo", "eu").returncode == 0
    (row,) = json.loads(smol("sessions", "list", "--json", "--tag", "geo").stdout)
    assert (row["title"], row["turns"], row["tags"]) == ("Capitals", 2, ["eu", "geo"]) and row[
        "tokens"
    ] > 40
    assert smol("sessions", "tag", name, "--", "-eu").returncode == 0
    (row,) = json.loads(smol("sessions", "list", "--json").stdout)
    assert row["tags"] == ["geo"]
    found = smol("sessions", "search", "ITALY").stdout
    assert name in found and "[Italy]" in found

    out = tmp_path / "all.json"
    assert smol("sessions", "export", "-f", "json", "-o", str(out)).returncode == 0
    assert smol("sessions", "export", "-f", "json", "-o", str(out)).returncode == 2, (
        "a file that is there is not replaced"
    )
    page = smol("sessions", "export", "Capitals", "--format", "html").stdout
    assert page.startswith("<!doctype html>") and "Paris" in page
    assert smol("sessions", "backup", str(tmp_path / "copy.db")).returncode == 0

    assert smol("sessions", "delete", name).returncode == 2, "never asks when stdin is no terminal"
    assert "1 session, 4 messages deleted" in smol("sessions", "delete", "-y", name).stderr
    assert smol("sessions", "list", "-q").stdout == ""
    assert smol("sessions", "import", str(out)).stderr == "1 chat imported\n"
    assert "0 chats imported, 1 already here" in smol("sessions", "import", str(out)).stderr
    (again,) = smol("sessions", "list", "-q").stdout.split()
    assert smol("sessions", "export", again, "-f", "json").stdout == out.read_text()


def test_the_tree_of_a_session(smol: Run, home: Path) -> None:
    done = smol(
        "sessions",
        "import",
        "-",
        stdin='[{"role": "user", "content": "q"}, {"role": "assistant", "content": "one"}]',
    )
    assert done.returncode == 0
    code = (
        "from llmchat.history import History, BranchWriter; from llmchat.settings import World;"
        " from llmchat.conversation import Message\n"
        "h = History(World.real().history_file); l = BranchWriter(h, h.latest().id);"
        " l.rewind(1); l.append(Message('assistant', 'two'))"
    )
    subprocess.run([sys.executable, "-c", code], env={"HOME": str(home), "PATH": ""}, check=True)
    (name,) = smol("sessions", "list", "-q").stdout.split()
    assert smol("sessions", "show", "--tree", name).stdout.splitlines() == [
        "* user: q",
        "    assistant: one",
        "*   assistant: two",
    ]


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["purge", "--older-than", "soon"], "error: invalid age `soon`"),
        (["show", "zzz"], "error: no session begins with `zzz`"),
        (["export", "-f", "doc"], "error: invalid format `doc`"),
        (["import", "/nowhere.json"], "error: /nowhere.json cannot be read"),
        (["rename", "x", " "], "error: the title is empty"),
        (["backup", "/nowhere/at/all.db"], "error: there is no folder /nowhere/at"),
    ],
)
def test_mistakes_are_one_line(run: Run, arguments: list[str], line: str) -> None:
    done = run("sessions", *arguments)
    assert done.returncode == 2 and done.stderr.startswith(line), done.stderr


def test_purge_takes_the_old_alone(smol: Run) -> None:
    old = (
        '{"messages": [{"role": "user", "content": "old", "created": 1000000000}],'
        ' "created": 1000000000}'
    )
    assert smol("sessions", "import", "-", stdin=old).returncode == 0
    assert (
        smol("sessions", "import", "-", stdin='[{"role": "user", "content": "new"}]').returncode
        == 0
    )
    assert (
        "1 session, 1 message deleted"
        in smol("sessions", "purge", "--older-than", "30d", "-y").stderr
    )
    (row,) = json.loads(smol("sessions", "list", "--json").stdout)
    assert row["title"] == "new"


def test_thinking_and_summaries_through_the_pipe(smol: Run, tmp_path: Path) -> None:
    """One-shots with a small window and the summary policy print the answer alone on stdout.

    The questions fill the window by themselves, however short the answers are.
    """
    window = ["--policy", "summary", "--context", "240", "--max-tokens", "60"]
    liked = "I have liked it since I was a child in school. " * 4
    for number in range(3):
        question = f"My favourite number is {number}. {liked}Tell me something about it."
        done = smol("chat", *(["-c"] if number else []), *window, question)
        assert done.returncode == 0 and "[summary]" not in done.stdout, done.stderr
    (name,) = smol("sessions", "list", "-q").stdout.split()
    roles = [
        one["message"]["role"]
        for one in json.loads(smol("sessions", "show", "--json", name).stdout)["messages"]
    ]
    assert roles.count("user") == 3 and roles.count("assistant") == 3 and "summary" in roles
