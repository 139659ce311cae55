"""MCP servers of tests: their entries, their connections and their processes."""

import os
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Event
from typing import Any

from llmchat.tools.mcp import Limits, McpServers, Server, connect
from support.worlds import make_world

SERVER = Path(__file__).with_name("mcp_server.py")
# Long enough for a busy machine; what is expected to hang gets less.
PATIENT = Limits(wait=20.0, start=20.0, call=20.0)


def entry(behaviour: str = "plain", record: Path | None = None, **env: str) -> Server:
    """A server that behaves so. record: the file that gets the messages sent to it."""
    command = ("-I", "-S", str(SERVER), behaviour, *([str(record)] if record else []))
    return Server(command=sys.executable, args=command, env=env)


@contextmanager
def connected(home: Path, limits: Limits = PATIENT, **servers: Server) -> Iterator[McpServers]:
    """Servers that have started, or failed to."""
    with connect(servers, make_world(home), limits) as running:
        running.wait()
        yield running


def call(servers: McpServers, remote: str, server: str = "it", **arguments: Any) -> str:
    """The text of a call that nobody stops, by the server's own name of the tool."""
    return servers.call(server, remote, arguments, Event()).text


def mark() -> str:
    """A value for an environment variable, by which `marked` finds the processes of a test."""
    return f"mark-{uuid.uuid4().hex}"


def marked(value: str) -> list[int]:
    """The processes that have a value in their environment. One that has ended has none."""
    found = []
    for folder in Path("/proc").iterdir():
        with suppress(OSError):
            if folder.name.isdigit() and value.encode() in (folder / "environ").read_bytes():
                found.append(int(folder.name))
    return found


def until(condition: Callable[[], bool], seconds: float = 20.0) -> bool:
    """Whether a condition becomes true in time."""
    end = time.monotonic() + seconds
    while not (met := condition()) and time.monotonic() < end:
        time.sleep(0.01)
    return met


def resident() -> int:
    """Bytes of memory that this process uses."""
    pages = int(Path("/proc/self/statm").read_text("utf-8").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")
