"""A server that runs as a program of the user's: messages are lines on its stdin and stdout.

The SDK's own transport holds a line of any length in memory and cleans up only what stays in the
server's process group; this one is bounded, and `process/keeper.py` ends whatever was started.
"""

import os
import signal
import subprocess
from collections import deque
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import anyio
from anyio.abc import Process
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream
from mcp.client.stdio import DEFAULT_INHERITED_ENV_VARS
from mcp.shared.message import SessionMessage
from mcp_types import jsonrpc_message_adapter

from llmchat.errors import UsageError
from llmchat.output.terminal_text import harmless
from llmchat.process import keeper
from llmchat.process.programs import SAFE_PATH, isolated_python, which
from llmchat.tools.mcp.config import Server
from llmchat.tools.mcp.definitions import clean

LONGEST_MESSAGE = 32_000_000
_MOST_NOISE = 1_000
_TAIL = 200
_LONGEST_LINE = 2_000
# The keeper's own patience, and a little for a busy machine.
_END_S = 2 * keeper.PATIENCE + keeper.LAST_PATIENCE + 2.0
_ENDING = (anyio.BrokenResourceError, anyio.ClosedResourceError, OSError)


Item = SessionMessage | Exception
Streams = tuple[MemoryObjectReceiveStream[Item], MemoryObjectSendStream[SessionMessage]]


class Lines:
    """Cuts bytes into lines. Raises OverflowError for one that is too long."""

    def __init__(self, longest: int = LONGEST_MESSAGE):
        self._longest, self._held = longest, bytearray()

    def feed(self, data: bytes) -> list[bytes]:
        *whole, rest = data.split(b"\n")
        if whole:
            whole[0] = bytes(self._held) + whole[0]
            self._held.clear()
        self._held += rest
        if len(self._held) > self._longest:
            raise OverflowError
        return whole


class Program:
    """A running server. reason: why it is of no use any more; log: the last lines of its stderr."""

    def __init__(self, process: Process, log: deque[str]):
        self._process, self._log = process, log
        self.reason = ""
        self.useless = anyio.Event()
        self._noise, self._heard = "", 0
        self._logged, self._ending = anyio.Event(), False

    async def read(self, inbox: MemoryObjectSendStream[Item]) -> None:
        """Hand on its messages until it ends or becomes unusable."""
        async with inbox:
            with suppress(*_ENDING):
                await self._read_lines(inbox)
            if not self._ending:
                self.reason = self.reason or await self._end()
            self.useless.set()

    async def _read_lines(self, inbox: MemoryObjectSendStream[Item]) -> None:
        assert self._process.stdout
        lines = Lines()
        async for data in self._process.stdout:
            try:
                await self._hand_on(lines.feed(data), inbox)
            except OverflowError:
                size = f"{LONGEST_MESSAGE // 1_000_000} MB"
                self.reason = f"it sent a message of more than {size}"
            if self.reason:
                return

    async def write(self, outbox: MemoryObjectReceiveStream[SessionMessage]) -> None:
        assert self._process.stdin
        with suppress(*_ENDING):
            async with outbox:
                async for item in outbox:
                    line = item.message.model_dump_json(by_alias=True, exclude_unset=True)
                    await self._process.stdin.send(f"{line}\n".encode())

    async def keep_log(self) -> None:
        """Read its stderr, and keep the last lines."""
        assert self._process.stderr
        rest = b""
        with suppress(*_ENDING):
            async for data in self._process.stderr:
                *lines, rest = (rest + data).split(b"\n")
                rest = rest[:_LONGEST_LINE]
                self._log.extend(_text(line) for line in lines if line.strip())
        if rest.strip():
            self._log.append(_text(rest))
        self._logged.set()

    async def end(self) -> None:
        """Close its stdin, and wait until the keeper has ended everything."""
        assert self._process.stdin and self._process.stdout and self._process.stderr
        self._ending = True
        with anyio.CancelScope(shield=True):
            with suppress(*_ENDING):
                await self._process.stdin.aclose()
            with suppress(ProcessLookupError):
                self._process.send_signal(signal.SIGTERM)
            await self._exited(_END_S)
            for pipe in (self._process.stdout, self._process.stderr):
                with suppress(*_ENDING):
                    await pipe.aclose()
            self._close_transport()

    def _close_transport(self) -> None:
        """Let go of the pipes, which asyncio keeps open where data are left in them."""
        transport = getattr(getattr(self._process, "_process", None), "_transport", None)
        if transport is not None:
            transport.close()

    async def _hand_on(self, lines: list[bytes], inbox: MemoryObjectSendStream[Item]) -> None:
        for line in lines:
            try:
                message = jsonrpc_message_adapter.validate_json(line, by_name=False)
            except ValueError:
                self._is_noise(line)
                if self.reason:
                    return
                continue
            self._heard = 0
            await inbox.send(SessionMessage(message))

    def _is_noise(self, line: bytes) -> None:
        """Servers print greetings to stdout. Nothing but such lines is no server."""
        if not line.strip():
            return
        self._noise, self._heard = self._noise or clean(_text(line), 80), self._heard + 1
        if self._heard > _MOST_NOISE:
            self.reason = f"it writes no MCP messages to stdout, but `{self._noise}`"

    @property
    def complaint(self) -> str:
        """What it printed, as the end of a line about a failure."""
        if self._log:
            return f": {clean(self._log[-1], 200)}"
        return f"; it printed `{self._noise}`" if self._noise else ""

    async def _end(self) -> str:
        """Why its stdout ended, once the keeper knows the exit code."""
        code = await self._exited(_END_S / 2)
        if code is None:
            return f"it closed its stdout{self.complaint}"
        with anyio.move_on_after(0.5):
            await self._logged.wait()
        return f"it ended with exit code {code}{self.complaint}"

    async def _exited(self, patience: float) -> int | None:
        # Not `wait`: asyncio's also waits for the pipes, which a survivor may hold.
        with anyio.move_on_after(patience):
            while self._process.returncode is None:
                await anyio.sleep(0.01)
        return self._process.returncode


@asynccontextmanager
async def started(
    server: Server, env: Mapping[str, str], log: deque[str]
) -> AsyncIterator[tuple[Program, Streams]]:
    """Start a program and exchange messages with it. It has ended when the block is left.

    Raises UsageError for a program or a folder that does not exist.
    """
    process = await anyio.open_process(
        _command(server, env),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(server, env),
        cwd=_folder(server),
        # Neither Ctrl-C nor the terminal itself reaches it.
        start_new_session=True,
    )
    program = Program(process, log)
    send_in, receive_in = anyio.create_memory_object_stream[Item](0)
    send_out, receive_out = anyio.create_memory_object_stream[SessionMessage](0)
    async with anyio.create_task_group() as tasks, send_in, receive_in, send_out, receive_out:
        try:
            tasks.start_soon(program.read, send_in)
            tasks.start_soon(program.write, receive_out)
            tasks.start_soon(program.keep_log)
            yield program, (receive_in, send_out)
        finally:
            await program.end()
            tasks.cancel_scope.cancel()


def environment(server: Server, env: Mapping[str, str]) -> dict[str, str]:
    """What a server sees: the variables that the SDK calls safe, and those of its own entry."""
    inherited = {name: env[name] for name in DEFAULT_INHERITED_ENV_VARS if name in env}
    safe = {name: value for name, value in inherited.items() if not value.startswith("()")}
    return safe | ({} if server.cwd else SAFE_PATH) | server.env


def _command(server: Server, env: Mapping[str, str]) -> list[str]:
    program = which(server.command, {"PATH": server.env.get("PATH", env.get("PATH", os.defpath))})
    if program is None:
        raise UsageError(f"the program `{clean(server.command, 80)}` is not installed")
    keeping = isolated_python("-S", keeper.__file__, str(os.getpid()))
    return [*keeping, program, *server.args]


def _folder(server: Server) -> Path | None:
    if not server.cwd:
        return None
    folder = Path(server.cwd).expanduser()
    if not folder.is_dir():
        raise UsageError(f"its folder `{clean(server.cwd, 200)}` does not exist")
    return folder


def _text(line: bytes) -> str:
    return harmless(line[:_LONGEST_LINE].decode("utf-8", "replace"))


def log_tail() -> deque[str]:
    return deque(maxlen=_TAIL)
