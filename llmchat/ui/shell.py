"""`!command` in the chat: run by the person's own shell, shown as it comes, and kept to be given to the model."""

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

# What is kept of the output, in bytes; all of it is shown.
KEPT = 1_000_000
_CHUNK = 65_536
# Colours, titles and links that a program writes for a terminal are neither text for the chat nor for a model.
_SEQUENCE = re.compile(
    r"\x1b+(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[()][0-9A-Za-z]|[=>78cDEHMNOZ])"
)
_BEGUN = re.compile(r"\x1b+(?:\[[0-?]*[ -/]*|\][^\x07\x1b]{0,2000}\x1b?|[()])?\Z")


class Output(Struct, frozen=True):
    """What a command printed, stdout and stderr together; cut: it printed more than was kept."""

    text: str
    code: int
    cut: bool = False


def run(command: str, world: World, show: Callable[[str], None]) -> Output:
    """Run a command line to its end; Ctrl-C ends it, and all that it started. show: told the output as it comes."""
    shell = world.env.get("SHELL") or "/bin/sh"
    try:
        process = subprocess.Popen(
            [shell, "-c", command], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            env=dict(world.env), start_new_session=True,
        )  # fmt: skip
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


def _read(process: "subprocess.Popen[bytes]", show: Callable[[str], None]) -> tuple[str, int]:
    """The kept text of the output, and its size in bytes."""
    assert process.stdout
    decode = codecs.getincrementaldecoder("utf-8")("replace").decode
    kept, size, begun = [], 0, ""
    while data := os.read(process.stdout.fileno(), _CHUNK):
        text, begun = _without_sequences(begun + decode(data))
        show(text)
        if size < KEPT:
            kept.append(text)
        size += len(data)
    return "".join(kept), size


def _without_sequences(text: str) -> tuple[str, str]:
    """The text without control sequences, and one that has only begun at its end."""
    begun = _BEGUN.search(text)
    end = begun.start() if begun else len(text)
    return _SEQUENCE.sub("", text[:end]), text[end:]


def _end(process: "subprocess.Popen[bytes]") -> None:
    """Nothing that the command started is left behind, be it interrupted or done."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
    if process.stdout:
        process.stdout.close()
    try:
        process.wait(timeout=2)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
