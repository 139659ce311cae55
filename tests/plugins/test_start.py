"""What ten installed plugins cost at the start."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from support.plugin_packages import Packages

# Packages that `--help` imports. Those of the standard library differ between versions of Python.
OURS_AND_THEIRS = {
    "annotated_doc", "llmchat", "msgspec", "platformdirs", "rich", "shellingham", "typer",
    "typing_extensions",
}  # fmt: skip
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


def run(env: dict[str, str], *arguments: str, python: tuple[str, ...] = ()) -> tuple[str, str]:
    """What a command writes to stdout and stderr. python: options of the interpreter."""
    command = [sys.executable, *python, "-m", "llmchat", *arguments]
    done = subprocess.run(command, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout, done.stderr


def test_nothing_is_imported_for_what_is_not_asked(env: dict[str, str]) -> None:
    shown, _ = run(env, "--help")
    assert shown.count("Number") == 10
    answer, _ = run(env, "--engine", "scripted", "--no-log", "hello there")
    assert "> hello there" in answer
    listed, _ = run(env, "plugins", "-q")
    assert len(listed.splitlines()) == 80


def test_help_imports_little_and_nothing_of_plugins(env: dict[str, str]) -> None:
    """The time of `--help` is that of its imports (docs/plugins.md has the seconds)."""
    alone = imported({**env, "LLMCHAT_NO_PLUGINS": "1"})
    assert imported(env) == alone
    counted = [name for name in alone if name.partition(".")[0] in OURS_AND_THEIRS]
    assert 100 < len(counted) <= 205, len(counted)
    heavy = {"torch", "transformers", "peft", "bitsandbytes", "huggingface_hub", "prompt_toolkit"}
    assert not heavy & {name.partition(".")[0] for name in alone}


def imported(env: dict[str, str]) -> set[str]:
    """The modules that `--help` imports."""
    _, times = run(env, "--help", python=("-X", "importtime"))
    return {line.rpartition("|")[2].strip() for line in times.splitlines()}
