"""Run a command in the user's shell, stream its output, and return the text.

Ctrl-C ends the command and everything it started.
"""

import codecs
import os
import re
import signal
import subprocess
from collections.abc import Callable
from contextlib import suppress

from msgspec import Struct

from llmchat.errors import LlmchatError
from llmchat.settings import World

# Bytes of output that are returned; all of it is shown.
KEPT = 1_000_000
_CHUNK = 65_536
# Control sequences (colours, titles, links) are neither for the chat nor for the model.
_SEQUENCE = re.compile(
    r"\x1b+(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)"
    r"|[()][0-9A-Za-z]|[=>78cDEHMNOZ])"
)
_INCOMPLETE = re.compile(r"\x1b+(?:\[[0-?]*[ -/]*|\][^\x07\x1b]{0,2000}\x1b?|[()])?\Z")


class Output(Struct, frozen=True):
    """The output of a command, stdout and stderr together.

    code: its exit code; cut: whether it printed more than `KEPT` bytes.
    """

    text: str
    code: int
    cut: bool = False


def run(command: str, world: World, show: Callable[[str], None]) -> Output:
    """Run a command line to its end. show: called with each piece of output."""
    shell, words = _shell(command, world)
    try:
        process = subprocess.Popen(
            words,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=dict(world.env),
            start_new_session=True,
        )
    except OSError as error:
        raise LlmchatError(
            f"{shell} cannot be started: {error.strerror}", "SHELL names the shell to use"
        ) from error
    try:
        text, size = _read(process, show)
        code = process.wait()
    finally:
        _end(process)
    return Output(text, code, size > KEPT)


def _shell(command: str, world: World) -> tuple[str, str | list[str]]:
    """The user's shell, and what runs a command line in it: one text for Windows' own shell."""
    default = world.env.get("COMSPEC") or "/bin/sh"
    shell = world.env.get("SHELL") or default
    if shell == world.env.get("COMSPEC"):
        return shell, f'"{shell}" /c "{command}"'
    return shell, [shell, "-c", command]


def _read(process: "subprocess.Popen[bytes]", show: Callable[[str], None]) -> tuple[str, int]:
    """The first `KEPT` bytes of the output as text, and the size of all of it in bytes."""
    assert process.stdout
    decode = codecs.getincrementaldecoder("utf-8")("replace").decode
    kept, size, incomplete = [], 0, ""
    while data := os.read(process.stdout.fileno(), _CHUNK):
        text, incomplete = _without_sequences(incomplete + decode(data))
        show(text)
        if size < KEPT:
            kept.append(text)
        size += len(data)
    return "".join(kept), size


def _without_sequences(text: str) -> tuple[str, str]:
    """A text without control sequences, and an incomplete sequence at its end."""
    incomplete = _INCOMPLETE.search(text)
    end = incomplete.start() if incomplete else len(text)
    return _SEQUENCE.sub("", text[:end]), text[end:]


def _end(process: "subprocess.Popen[bytes]") -> None:
    """End everything that the command started and that still runs."""
    _signal_all(process, kills=False)
    if process.stdout:
        process.stdout.close()
    try:
        process.wait(timeout=2)
    except subprocess.TimeoutExpired:
        _signal_all(process, kills=True)
        process.wait()


def _signal_all(process: "subprocess.Popen[bytes]", *, kills: bool) -> None:
    """End the session of the process; on Windows the process alone."""
    if hasattr(os, "killpg"):
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL if kills else signal.SIGTERM)
    elif kills:
        process.kill()
    else:
        process.terminate()
