"""The REPL in a pseudo-terminal."""

import os
import sys
from pathlib import Path

import pexpect

DRIVER = Path(__file__).with_name("drive_repl.py")


def start(
    home: Path, *arguments: str, size: tuple[int, int] = (24, 80), **env: str
) -> "pexpect.spawn[str]":
    child = pexpect.spawn(
        sys.executable,
        [str(DRIVER), str(home), *arguments],
        dimensions=size,
        encoding="utf-8",
        timeout=20,
        env={
            **os.environ,
            "TERM": "xterm-256color",
            "COLORTERM": "",
            "PROMPT_TOOLKIT_NO_CPR": "1",
            **env,
        },
    )
    child.expect("/help for commands")
    ready(child)
    return child


def ready(child: "pexpect.spawn[str]") -> None:
    """Wait for a fresh prompt. No bottom line is drawn, as cursor queries get no answer."""
    child.expect_exact("\x1b[0;38;5;30;1m>")
    child.expect_exact("\x1b[?25h")
