"""Starts and stops the background server, which keeps running when the terminal is closed."""

import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

from llmchat.background.client import alive, ask, socket_file
from llmchat.errors import LlmchatError, UsageError
from llmchat.process.programs import python
from llmchat.settings import World, private_file

# Loading a large model for the first time takes minutes.
_START_S = 900.0
_STOP_S = 60.0
_POLL_S = 0.05


def log_file(world: World) -> Path:
    return world.state / "serve.log"


def start(world: World, arguments: Sequence[str]) -> None:
    """Start `llmchat` with these arguments in its own session, and wait until it serves.

    Raises UsageError if one runs already, LlmchatError with its last message if it ends at once.
    """
    if alive(world):
        raise UsageError(
            "a background server is running already", "`llmchat serve --stop` stops it"
        )
    log = log_file(world)
    private_file(log)
    with open(log, "wb") as output:
        command = python("-m", "llmchat", *arguments)
        child = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
            env=dict(world.env),
        )
    end = time.monotonic() + _START_S
    while time.monotonic() < end:
        if child.poll() is not None:
            raise LlmchatError(f"the server ended: {_last_message(log)}", f"{log} has its log")
        if alive(world):
            # It answers once its models are loaded.
            facts = ask(world, "GET", "/api/ps", timeout_s=end - time.monotonic())
            print(
                f"serving as process {facts['pid']};"
                f" `llmchat serve --stop` stops it, {log} has its log",
                file=world.stderr,
            )
            return
        time.sleep(_POLL_S)
    raise LlmchatError("the server does not answer", f"{log} has its log")


def stop(world: World) -> None:
    """Ask the server to stop, and wait until it has."""
    ask(world, "POST", "/private/stop", {})
    end = time.monotonic() + _STOP_S
    while socket_file(world).exists() and time.monotonic() < end:
        time.sleep(_POLL_S)


def _last_message(log: Path) -> str:
    lines = [line for line in log.read_text("utf-8", "replace").splitlines() if line.strip()]
    errors = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
    return (errors or lines or ["without a message"])[-1]
