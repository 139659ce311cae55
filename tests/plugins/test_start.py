"""What ten installed plugins cost at the start."""

import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest
from support.plugin_packages import Packages

KINDS = ("command", "slash", "tools", "engine", "presets", "data", "embedder", "exporter")


@pytest.fixture
def env(packages: Packages, tmp_path: Path) -> dict[str, str]:
    """A user with ten plugins of every kind, whose imports end the process."""
    for number in range(10):
        entries = [f"{kind}.p{number}" for kind in KINDS]
        code = "import os\nos._exit(99)\n"
        packages.install(f"llmchat-p{number}", code, *entries, summary=f"Number {number}")
    paths = {"HOME": str(tmp_path), "PATH": os.environ["PATH"]}
    return {**paths, "PYTHONPATH": str(packages.folder)}


def run(env: dict[str, str], *arguments: str) -> tuple[str, float]:
    """What a command prints, and the seconds of processor time that it takes."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [sys.executable, "-m", "llmchat", *arguments]
    done = subprocess.run(command, env=env, capture_output=True, text=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.returncode == 0, done.stderr
    return done.stdout, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def test_nothing_is_imported_for_what_is_not_asked(env: dict[str, str]) -> None:
    shown, _ = run(env, "--help")
    assert shown.count("Number") == 10
    answer, _ = run(env, "--engine", "scripted", "--no-log", "hello there")
    assert "> hello there" in answer
    listed, _ = run(env, "plugins", "-q")
    assert len(listed.splitlines()) == 80


@pytest.mark.slow
def test_help_takes_a_quarter_of_a_second_at_most(env: dict[str, str]) -> None:
    """The least of several: other programs on the machine only add to it."""
    assert min(run(env, "--help")[1] for _ in range(12)) <= 0.25
