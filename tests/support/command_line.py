"""Whole commands of llmchat in processes of their own, each test with an empty home."""

import io
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

Run = Callable[..., "subprocess.CompletedProcess[str]"]


LLMCHAT = [sys.executable, "-m", "llmchat"]


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A user's empty home."""
    return tmp_path / "home"


@pytest.fixture
def env(home: Path, tmp_path: Path) -> dict[str, str]:
    home.mkdir()
    return {
        "HOME": str(home),
        "PATH": os.environ["PATH"],
        "TERM": "xterm-256color",
        "XDG_CACHE_HOME": str(tmp_path / "cache"),
    }


@pytest.fixture
def run(env: dict[str, str]) -> Run:
    def run(*arguments: str, stdin: str = "", **more: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [*LLMCHAT, *arguments],
            input=stdin,
            capture_output=True,
            text=True,
            env=env | more,
            timeout=120,
        )

    return run


@pytest.fixture
def smol(run: Run, env: dict[str, str], smol_home: Path) -> Run:
    """The same user with the default model pulled."""
    Path(env["XDG_CACHE_HOME"]).mkdir()
    (Path(env["XDG_CACHE_HOME"]) / "llmchat").symlink_to(smol_home / "cache")
    return run


def in_process(
    home: Path, monkeypatch: pytest.MonkeyPatch, capture: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    """Runs commands in this process, with folders below `home`: exit code, stdout, stderr."""
    from llmchat.cli import main

    for name in ("CACHE", "CONFIG", "DATA", "STATE"):
        monkeypatch.setenv(f"XDG_{name}_HOME", str(home / name))

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.stdin", io.StringIO())
        capture.readouterr()
        code = main(list(arguments))
        return code, *capture.readouterr()

    return run
