"""All servers of a chat: an event loop in a thread of its own, behind calls that block."""

import time
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import CancelledError, Future, TimeoutError, wait
from contextlib import ExitStack
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from threading import Condition, Event
from typing import TYPE_CHECKING, Any, Self

from msgspec import Struct

from llmchat.errors import LlmchatError, UsageError
from llmchat.settings import World
from llmchat.tools import Output, ToolError
from llmchat.tools.mcp.config import Server
from llmchat.tools.mcp.definitions import Definition, Listing, clean, tool_name

if TYPE_CHECKING:
    from llmchat.tools.mcp.connection import Connection

# How soon a call notices that the user stopped it.
_POLL_S = 0.05
# How long a server on the network may take to say goodbye.
_CLOSE_S = 3.0
_MOST_NOTES = 20
Progress = Callable[[tuple[str, ...]], None]


class Limits(Struct, frozen=True):
    """Seconds. wait: for servers, since they began to start; start: for the start of one, which
    may have to be downloaded first; call: for a call.
    """

    wait: float = 20.0
    start: float = 120.0
    call: float = 300.0


_DEFAULT = Limits()


class McpTool:
    """A tool of a server.

    claims_read_only: what the server says of itself, to be shown. It is never believed:
    `read_only` is False.
    """

    read_only = False

    def __init__(
        self, group: str, name: str, origin: str, definition: Definition, servers: "McpServers"
    ):
        self.group, self.name, self.origin, self._servers = group, name, origin, servers
        self.remote, self.description = definition.remote, definition.description
        self.parameters = definition.parameters
        self.claims_read_only = definition.claims_read_only

    def run(self, arguments: dict[str, Any], stop: Event) -> Output:
        return self._servers.call(self.group, self.remote, arguments, stop)


class _Slot:
    """What is known of one server. Also receives the connection's events, in its thread."""

    def __init__(self, name: str, origin: str, changed: Condition, notes: list[str]):
        self.name, self.origin, self._changed, self._notes = name, origin, changed, notes
        self.starting, self.alive, self.closing, self.reason = True, True, False, ""
        self.listing = Listing()
        self._noted, self._late = set[str](), False
        self.connection: Connection | None = None

    def listed(self, listing: Listing) -> None:
        with self._changed:
            before, self.listing = self.listing, listing
            for line in listing.notes:
                self.note(line)
            if not self.starting:
                self._note_changes(before, listing)
            elif self._late:
                self.note(f"is ready now, with {len(listing.tools)} tools")
            self.starting = False
            self._changed.notify_all()

    def asked(self, method: str) -> None:
        with self._changed:
            self.note(f"asked for `{clean(method, 80)}`, which llmchat refuses")

    def ended(self, reason: str) -> None:
        with self._changed:
            word = "did not start" if self.starting else "stopped"
            self.starting, self.alive, self.reason = False, False, reason
            if not self.closing:
                self._add(f"{word}: {reason}")
            self._changed.notify_all()

    def is_late(self, seconds: float) -> None:
        self._late = True
        self.note(f"has not started within {seconds:g} s; its tools follow when it has")

    def note(self, line: str) -> None:
        """A line for the user, once, and not without end."""
        if line not in self._noted and len(self._noted) < _MOST_NOTES:
            self._noted.add(line)
            self._add(line)

    def _add(self, line: str) -> None:
        self._notes.append(f"MCP server `{self.name}` {line}")

    def _note_changes(self, before: Listing, after: Listing) -> None:
        old, new = ({tool.remote: tool for tool in one.tools} for one in (before, after))
        parts = {
            "new": new.keys() - old.keys(),
            "removed": old.keys() - new.keys(),
            "changed": {name for name in old.keys() & new.keys() if old[name] != new[name]},
        }
        lists = [
            f"{word}: {clean(', '.join(sorted(names)), 200)}"
            for word, names in parts.items()
            if names
        ]
        if lists:
            self.note(f"changed its tools ({'; '.join(lists)})")


class McpServers:
    """Servers that start in the background. Safe to use from any thread; `close` ends them all."""

    def __init__(
        self,
        servers: Mapping[str, Server],
        env: Mapping[str, str],
        limits: Limits,
        taken: Collection[str],
    ):
        self._changed, self._notes = Condition(), list[str]()
        self._servers, self._env, self._limits = servers, env, limits
        self._names, self._taken = dict[tuple[str, str], str](), set(taken)
        self._slots = {
            name: _Slot(name, server.origin, self._changed, self._notes)
            for name, server in servers.items()
        }
        self._begun = time.monotonic()
        self._stack, self._runs = ExitStack(), dict[str, Future[None]]()
        self._open()

    def _open(self) -> None:
        from anyio.from_thread import start_blocking_portal

        self._portal = self._stack.enter_context(start_blocking_portal(name="mcp"))
        for name, server in self._servers.items():
            for key in server.ignored:
                self._slots[name].note(f"has the unknown key `{clean(key, 40)}` in {server.file}")
            self._runs[name] = self._portal.start_task_soon(self._run, name)

    async def _run(self, name: str) -> None:
        from anyio.to_thread import run_sync

        # The SDK takes half a second to load, which neither the caller nor the loop waits for.
        module = await run_sync(import_module, "llmchat.tools.mcp.connection")
        limits, slot = self._limits, self._slots[name]
        slot.connection = module.Connection(
            self._servers[name], self._env, slot, limits.start, limits.call
        )
        await slot.connection.run()

    @property
    def starting(self) -> tuple[str, ...]:
        """The servers that have not answered yet."""
        return tuple(name for name, slot in self._slots.items() if slot.starting)

    def wait(self, progress: Progress | None = None) -> None:
        """Wait for the servers that still start, up to a limit since they began to.

        progress: called in this thread with the names of those that are waited for.
        """
        until = self._begun + self._limits.wait
        while (left := self.starting) and (seconds := until - time.monotonic()) > 0:
            if progress:
                progress(left)
            with self._changed:
                self._changed.wait_for(partial(self._starts_other_than, left), seconds)
        with self._changed:
            for name in self.starting:
                self._slots[name].is_late(self._limits.wait)

    def _starts_other_than(self, names: tuple[str, ...]) -> bool:
        return self.starting != names

    @property
    def tools(self) -> list[McpTool]:
        """The tools of the servers that run, as they last listed them. Waits for no server."""
        with self._changed:
            return [
                McpTool(name, self._name(name, tool.remote), slot.origin, tool, self)
                for name, slot in self._slots.items()
                if slot.alive
                for tool in slot.listing.tools
            ]

    def take_notes(self) -> list[str]:
        """Lines for the user since the last time: what failed, what was refused."""
        with self._changed:
            lines = list(self._notes)
            self._notes.clear()
            return lines

    def log(self, name: str) -> str:
        """The last lines that a server wrote to stderr."""
        connection = self._slots[name].connection
        return "\n".join(connection.log) if connection else ""

    def call(self, name: str, remote: str, arguments: dict[str, Any], stop: Event) -> Output:
        """Call a tool by the server's own name of it. Raises ToolError."""
        slot = self._slots[name]
        if not slot.alive or slot.connection is None:
            raise ToolError(f"MCP server `{name}` is not running: {slot.reason}")
        future = self._portal.start_task_soon(slot.connection.call, remote, arguments)
        try:
            return _result(future, stop)
        finally:
            future.cancel()

    def close(self) -> None:
        """End all servers, and wait until their processes are gone."""
        try:
            for name, slot in self._slots.items():
                slot.closing = True
                if slot.starting or slot.connection is None:
                    self._runs[name].cancel()
                elif not self._runs[name].done():
                    self._portal.start_task_soon(slot.connection.close)
            wait(self._runs.values(), _CLOSE_S)
        finally:
            for run in self._runs.values():
                run.cancel()
            self._stack.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *details: object) -> None:
        self.close()

    def _name(self, group: str, remote: str) -> str:
        """The name of a tool for the model: the same as long as the servers run."""
        key = (group, remote)
        if key not in self._names:
            name = tool_name(group, remote, self._taken)
            self._names[key] = name
            self._taken.add(name)
        return self._names[key]


def connect(
    servers: Mapping[str, Server],
    world: World,
    limits: Limits = _DEFAULT,
    taken: Collection[str] = (),
) -> McpServers:
    """Begin to start the servers that are not disabled, and return at once.

    taken: names of other tools. Raises UsageError where the SDK is not installed.
    """
    if find_spec("mcp") is None:
        raise UsageError("MCP servers need the package `mcp`", "pip install 'llmchat[tools]'")
    chosen = {name: server for name, server in servers.items() if not server.disabled}
    return McpServers(chosen, world.env, limits, taken)


def _result(future: Future[Output], stop: Event) -> Output:
    while not stop.is_set():
        try:
            return future.result(_POLL_S)
        except TimeoutError:
            continue
        except CancelledError as error:
            raise ToolError("the server was closed") from error
        except LlmchatError:
            raise
    raise ToolError("it was stopped")
