"""Start the confined process, read what it prints, and end it at a limit."""

import json
import os
import select
import signal
import subprocess
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from threading import Event
from typing import Any

from msgspec import Struct

from llmchat.output.formatting import byte_count
from llmchat.parse_guard import shown
from llmchat.process.programs import isolated_python
from llmchat.tools import ToolError
from llmchat.tools.python.sandbox import FAILED, NOT_CONFINED
from llmchat.tools.python.workspace import size

_SCRIPT = Path(__file__).with_name("sandbox.py")
_POLL_S = 0.05
# Seconds between two looks at what the code has written.
_DISK_S = 0.5


class Limits(Struct, frozen=True):
    """seconds: from start to end. In bytes: memory, what is printed, and all files."""

    seconds: int = 30
    memory: int = 1 << 30
    output: int = 100_000
    disk: int = 200_000_000


def run_confined(
    request: dict[str, Any], folder: Path, env: Mapping[str, str], limits: Limits, stop: Event
) -> str:
    """Run code in `folder`; returns what it printed, and how it ended where that was not well.

    The process is gone when this returns or raises.
    """
    request = {
        **request,
        "memory": limits.memory,
        "seconds": limits.seconds + 5,
        "file_size": limits.disk,
    }
    process = subprocess.Popen(
        isolated_python("-X", "utf8", str(_SCRIPT)),
        cwd=folder,
        env=dict(env),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        watched = _Watched(process, folder, limits, stop)
        watched.send(json.dumps(request).encode())
        ending = watched.read()
    finally:
        _end(process)
    if process.returncode == NOT_CONFINED:
        raise ToolError(f"the code cannot be confined here: {shown(watched.printed.decode())}")
    return _told(watched.printed, ending or _ending(process.returncode))


class _Watched:
    def __init__(
        self, process: "subprocess.Popen[bytes]", folder: Path, limits: Limits, stop: Event
    ):
        assert process.stdin and process.stdout
        self._process = process
        self._in, self._out = process.stdin, process.stdout
        self._folder, self._limits, self._stop = folder, limits, stop
        self._end = time.monotonic() + limits.seconds
        self._next_look = 0.0
        # Unlike select, poll takes descriptors above 1,024.
        self._ready = select.poll()
        self._ready.register(self._out, select.POLLIN)
        self.printed = bytearray()

    def send(self, data: bytes) -> None:
        """The whole request: the process reads it before it runs anything."""
        try:
            with self._in:
                self._in.write(data)
        except BrokenPipeError:
            # It ended at once; what it printed says why.
            return

    def read(self) -> str:
        """Read what is printed until the process closes it; else the limit that was passed."""
        while True:
            if passed := self._passed():
                return passed
            if not self._ready.poll(_POLL_S * 1000):
                continue
            piece = os.read(self._out.fileno(), 1 << 16)
            if not piece:
                return self._until_it_exits()
            self.printed += piece

    def _until_it_exits(self) -> str:
        """Code may close its output and run on."""
        while not (passed := self._passed()):
            try:
                self._process.wait(_POLL_S)
                return ""
            except subprocess.TimeoutExpired:
                continue
        return passed

    def _passed(self) -> str:
        if self._stop.is_set():
            return "stopped"
        if time.monotonic() > self._end:
            return f"stopped after {self._limits.seconds} s"
        if len(self.printed) > self._limits.output:
            del self.printed[self._limits.output :]
            return f"stopped: it printed more than {byte_count(self._limits.output, 0)}"
        if self._is_disk_full():
            return (
                f"stopped: it wrote more than {byte_count(self._limits.disk, 0)}, or too many files"
            )
        return ""

    def _is_disk_full(self) -> bool:
        if time.monotonic() < self._next_look:
            return False
        self._next_look = time.monotonic() + _DISK_S
        return size(self._folder) > self._limits.disk


def _end(process: "subprocess.Popen[bytes]") -> None:
    """End the process, which could not start another one, and close its pipes."""
    process.kill()
    process.wait()
    for stream in (process.stdin, process.stdout):
        if stream:
            with suppress(BrokenPipeError):
                stream.close()


def _ending(code: int) -> str:
    """How the process ended; empty if it ended well, or if it printed the reason."""
    if code in (0, FAILED):
        return ""
    if code > 0:
        return f"exit code {code}"
    name = signal.Signals(-code).name if -code in set(signal.Signals) else f"signal {-code}"
    return f"killed by {name}"


def _told(printed: bytearray, ending: str) -> str:
    """What the model is given."""
    text = printed.decode("utf-8", "replace").rstrip()
    note = f"[{ending}]" if ending else "" if text else "[no output; print the result]"
    return "\n".join(filter(None, (text, note)))
