"""The plugin in llmchat itself, on a real repository: run where both are installed."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.fixture
def repo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository with two commits, and the current folder."""
    for name, value in {
        "HOME": str(tmp_path / "home"),
        "GIT_CONFIG_NOSYSTEM": "1",
        "LLMCHAT_ENGINE": "scripted",
        **{
            f"GIT_{role}_{what}": f"me{'@x.org' if what == 'EMAIL' else ''}"
            for role in ("AUTHOR", "COMMITTER")
            for what in ("NAME", "EMAIL")
        },
    }.items():
        monkeypatch.setenv(name, value)
    folder = tmp_path / "repo"
    folder.mkdir()
    monkeypatch.chdir(folder)
    run("git", "init", "-q")
    for number, subject in enumerate(("Add the parser", "Parse dates")):
        (folder / "parser.py").write_text(f"step = {number}\n")
        run("git", "add", ".")
        run("git", "commit", "-q", "-m", subject)
    return folder


def run(*command: str, code: int = 0) -> str:
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == code, done.stderr
    return done.stdout + done.stderr if code else done.stdout


def llmchat(*arguments: str, code: int = 0) -> str:
    return run(sys.executable, "-m", "llmchat", *arguments, code=code)


def test_all_of_it_is_listed() -> None:
    rows = json.loads(llmchat("plugins", "--check", "--json"))
    ours = {row["offers"] for row in rows if row["package"] == "llmchat-git"}
    assert ours == {"command.commit", "slash.diff", "tools.git", "data.git"}


def test_staged_changes_are_committed_with_a_written_message(repo: Path) -> None:
    (repo / "parser.py").write_text("step = 2\n")
    run("git", "add", ".")
    shown = llmchat("commit", "--print")
    assert shown.strip() and run("git", "log", "--format=%s").count("\n") == 2
    llmchat("commit", "--yes")
    written = run("git", "log", "-1", "--format=%B")
    # git removes white space at the ends of lines.
    assert written.split() == shown.split()


def test_nothing_staged_is_an_error(repo: Path) -> None:
    assert "nothing is staged" in llmchat("commit", code=2)


def test_commits_are_training_data(repo: Path) -> None:
    rows = [
        json.loads(line)
        for line in llmchat("data", "convert", "git:.", "--to", "alpaca").splitlines()
    ]
    assert [row["output"] for row in rows] == ["Parse dates", "Add the parser"]
    assert "+step = 1" in rows[0]["input"]


def test_the_diff_goes_with_the_next_message(repo: Path) -> None:
    from llmchat.ui.slash import registry

    attached: dict[str, str] = {}
    printed: list[str] = []

    class State:
        def __init__(self) -> None:
            self.attached, self.print, self.count = attached, printed.append, len

    (repo / "parser.py").write_text("step = 3\n")
    found = registry.get("diff")
    assert found is not None
    found.run(State(), "")  # type: ignore[arg-type]
    assert "+step = 3" in attached["git diff"] and "attached" in printed[0]


def test_tools_read_below_the_root_alone(repo: Path) -> None:
    from llmchat.settings import World
    from llmchat.tools import ToolSettings
    from llmchat.tools.registry import tools_of
    from llmchat.tools.running import run as run_tool

    (repo / "docs").mkdir()
    (repo / "docs" / "secret.md").write_text("x\n")
    settings = ToolSettings(World.real(), repo / "docs")
    log, diff, show = tools_of(["git"], settings)
    assert run_tool(log, {}, timeout_s=20).text == "nothing", "all commits are above the root"
    assert "outside" in run_tool(diff, {"path": "../parser.py"}, timeout_s=20).error
    whole = ToolSettings(World.real(), repo)
    log, diff, show = tools_of(["git"], whole)
    assert "Parse dates" in run_tool(log, {"search": "dates"}, timeout_s=20).text
    assert "+step = 1" in run_tool(show, {"revision": "HEAD"}, timeout_s=20).text
    assert (
        "unknown revision" in run_tool(show, {"revision": "--output=x"}, timeout_s=20).error
        or not (repo / "x").exists()
    )


def test_a_repository_cannot_run_programs(repo: Path) -> None:
    from llmchat.settings import World
    from llmchat.tools import ToolSettings
    from llmchat.tools.registry import tools_of
    from llmchat.tools.running import run as run_tool

    for key in ("diff.external", "core.fsmonitor", "diff.evil.textconv", "core.pager"):
        run("git", "config", key, f"touch {repo}/ran; false")
    (repo / ".gitattributes").write_text("*.py diff=evil\n")
    (repo / "parser.py").write_text("step = 4\n")
    os.environ.pop("GIT_PAGER", None)
    settings = ToolSettings(World.real(), repo)
    for tool, arguments in zip(
        tools_of(["git"], settings), ({}, {}, {"revision": "HEAD"}), strict=True
    ):
        assert run_tool(tool, arguments, timeout_s=20).text
    assert not (repo / "ran").exists()
