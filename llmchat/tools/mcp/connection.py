"""One server, in the event loop: start it, list its tools, call them."""

import logging
import math
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Any, Protocol

import anyio
import httpx2
from mcp import Client, MCPError
from mcp.client._transport import TransportStreams
from mcp.client.subscriptions import ListenNotSupportedError, SubscriptionLost
from mcp_types import Implementation, ToolListChangedNotification
from pydantic import ValidationError

from llmchat import __version__
from llmchat.errors import LlmchatError
from llmchat.tools import Output, ToolError
from llmchat.tools.mcp import http, stdio
from llmchat.tools.mcp.config import Server
from llmchat.tools.mcp.definitions import Listing, clean, listing
from llmchat.tools.mcp.inbox import Inbox
from llmchat.tools.mcp.results import output

_MOST_PAGES = 100
_MOST_ENTRIES = 10_000
# A server that changes its tools all the time is asked for them once a second.
_RELIST_S = 1.0
_OF_A_STATUS = ("Server returned an error response", "Not Found")
# The SDK logs what servers do wrong. Without a handler Python would print it.
for _name in ("mcp", "client"):
    logging.getLogger(_name).addHandler(logging.NullHandler())


class Events(Protocol):
    """What a connection reports, from the event loop's thread."""

    def listed(self, listing: Listing) -> None:
        """Its tools are known, for the first time or anew."""
        ...

    def asked(self, method: str) -> None:
        """It sent a request, which was refused."""
        ...

    def ended(self, reason: str) -> None:
        """It can be used no more."""
        ...


class Connection:
    """A server that runs until `close`, or until it ends itself.

    start_s, call_s: the longest time for the start, and for a call.
    """

    def __init__(
        self, server: Server, env: Mapping[str, str], events: Events, start_s: float, call_s: float
    ):
        self._server, self._env, self._events = server, env, events
        self._start_s, self._call_s = start_s, call_s
        self.log = stdio.log_tail()
        self._program: stdio.Program | None = None
        self._client: Client | None = None
        self._inbox: Inbox | None = None
        self._status = 0
        self._closing, self._changed = anyio.Event(), anyio.Event()

    async def run(self) -> None:
        """Serve until the end, and report it."""
        reason = "it was closed"
        try:
            with anyio.CancelScope(deadline=anyio.current_time() + self._start_s) as scope:
                await self._serve(scope)
            if scope.cancelled_caught:
                reason = f"it did not answer within {self._start_s:g} s{self._complaint}"
        except* Exception as errors:
            reason = self._reason(errors)
        finally:
            self._client = None
            self._events.ended((self._program and self._program.reason) or reason)

    def close(self) -> None:
        self._closing.set()

    async def call(self, name: str, arguments: dict[str, Any]) -> Output:
        """Call a tool. Raises ToolError."""
        if self._client is None:
            raise ToolError("the server is still starting")
        try:
            result = await self._client.call_tool(
                name, arguments, read_timeout_seconds=self._call_s
            )
        except Exception as error:
            gone = self._program and self._program.reason
            raise ToolError(f"the server stopped: {gone}" if gone else self._told(error)) from error
        return output(result.model_dump(mode="json", by_alias=True))

    async def _serve(self, start: anyio.CancelScope) -> None:
        async with self._streams() as streams, self._connected(streams) as client:
            self._events.listed(await self._list(client))
            self._client, start.deadline = client, math.inf
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._listen, client)
                tasks.start_soon(self._list_again, client)
                if self._program is not None:
                    tasks.start_soon(self._watch, self._program)
                await self._closing.wait()
                tasks.cancel_scope.cancel()

    async def _list_again(self, client: Client) -> None:
        """List the tools whenever they change. If that fails, those that are known stay."""
        while True:
            await self._changed.wait()
            self._changed = anyio.Event()
            with suppress(MCPError, ValidationError):
                self._events.listed(await self._list(client))
            await anyio.sleep(_RELIST_S)

    @asynccontextmanager
    async def _streams(self) -> AsyncIterator[TransportStreams]:
        server = self._server.expanded(self._env)
        if server.url:
            async with http.connected(server, self._env, self._refused) as streams:
                yield streams
            return
        async with stdio.started(server, self._env, self.log) as (self._program, streams):
            yield streams

    @asynccontextmanager
    async def _connected(self, streams: TransportStreams) -> AsyncIterator[Client]:
        """A client that offers the server nothing: no sampling, no questions, no folders."""
        read, write = streams
        self._inbox = Inbox(read, self._events.asked)

        @asynccontextmanager
        async def transport() -> AsyncIterator[TransportStreams]:
            assert self._inbox is not None
            yield self._inbox, write

        async with Client(
            transport(),
            client_info=Implementation(name="llmchat", version=__version__),
            message_handler=self._on_message,
            cache=None,
        ) as client:
            yield client

    async def _on_message(self, message: object) -> None:
        if isinstance(message, ToolListChangedNotification):
            self._changed.set()

    async def _listen(self, client: Client) -> None:
        """Ask a server of the 2026 protocol to tell when its tools change."""
        try:
            async with client.listen(tools_list_changed=True) as changes:
                async for _ in changes:
                    self._changed.set()
        except (ListenNotSupportedError, SubscriptionLost, MCPError):
            return

    async def _watch(self, program: stdio.Program) -> None:
        await program.useless.wait()
        self.close()

    async def _list(self, client: Client) -> Listing:
        """All pages of the tools, up to a limit."""
        assert self._inbox is not None
        entries, cursor = list[Any](), None
        self._inbox.set_aside.clear()
        for _ in range(_MOST_PAGES):
            page = await client.list_tools(cursor=cursor)
            entries += [tool.model_dump(mode="json", by_alias=True) for tool in page.tools]
            cursor = page.next_cursor
            if cursor is None or len(entries) > _MOST_ENTRIES:
                break
        entries += self._inbox.set_aside
        # Checking the schemas takes a while, and other servers need not wait for it.
        return await anyio.to_thread.run_sync(listing, self._server, entries)

    @property
    def _complaint(self) -> str:
        return self._program.complaint if self._program else ""

    def _reason(self, errors: BaseExceptionGroup[Exception]) -> str:
        return f"{self._told(errors)}{self._complaint}"

    def _refused(self, status: int) -> None:
        self._status = status

    def _told(self, error: BaseException) -> str:
        """An error in words; the status of an HTTP response where the SDK has only a set phrase."""
        words = _in_words(error)
        if words not in _OF_A_STATUS or not self._status:
            return words
        if self._status in (401, 403):
            return f"it asks for a key (HTTP status {self._status}); put one into its `headers`"
        return f"HTTP status {self._status}"


def _first(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def _in_words(error: BaseException) -> str:
    """An error of a server as a part of a line."""
    match _first(error):
        case LlmchatError() as known:
            hint = f" ({known.hint})" if known.hint else ""
            return f"{known.message}{hint}"
        case MCPError() as known:
            return clean(known.message, 300) or f"error {known.code}"
        case ValidationError():
            return "its answer is not as MCP requires"
        case httpx2.ConnectError():
            return "no connection"
        case httpx2.HTTPError() as known:
            return clean(str(known), 300) or type(known).__name__
        case known:
            return clean(f"{type(known).__name__} {known}", 300)
