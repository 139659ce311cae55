"""A tmux of its own for a test: a private socket, no configuration, no status line."""

import os
import shutil
import subprocess
import uuid
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

_MISSING = shutil.which("tmux") is None and not os.environ.get("CI")
if _MISSING:
    warnings.warn("tmux is not installed: the tests in tmux are skipped", stacklevel=1)
# Where CI is set a missing tmux fails the tests instead.
needs_tmux = pytest.mark.skipif(_MISSING, reason="tmux is not installed (CI requires it)")


class Tmux:
    """A server with one window. `run` gives commands to it."""

    def __init__(self) -> None:
        self._socket = f"llmchat-test-{uuid.uuid4().hex[:12]}"

    def run(self, *command: str) -> str:
        done = subprocess.run(
            ["tmux", "-L", self._socket, "-f", "/dev/null", *command],
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def start(self, columns: int, rows: int, *command: str, **env: str) -> None:
        variables = [item for name, value in env.items() for item in ("-e", f"{name}={value}")]
        options = ("set", "-g", "status", "off", ";", "set", "-g", "history-limit", "50000", ";")
        self.run(
            *options, "new-session", "-d", "-x", str(columns), "-y", str(rows), *variables, *command
        )

    def rows(self) -> list[str]:
        """Scrollback and screen, without the blank rows at the end."""
        return [
            row.rstrip() for row in self.run("capture-pane", "-p", "-S", "-").rstrip().split("\n")
        ]


@contextmanager
def tmux() -> Iterator[Tmux]:
    server = Tmux()
    try:
        yield server
    finally:
        server.run("kill-server")
