"""What a server sends, seen before the SDK reads it."""

from collections.abc import Callable
from typing import Any, Self

from mcp.client._transport import ReadStream
from mcp.shared.message import SessionMessage
from mcp_types import JSONRPCRequest, JSONRPCResponse

from llmchat.tools.mcp.definitions import known_parts

Item = SessionMessage | Exception
# Nobody needs so many refusals; each would wait in memory until the server reads it.
_MOST_REQUESTS = 1_000
_MOST_SET_ASIDE = 100


class Inbox:
    """A stream of messages from a server.

    It reports requests of the server, which llmchat refuses (sampling, questions, folders), and
    keeps from the SDK what would cost more than it is worth: one wrong entry spoils a whole list
    of tools, and an output schema may hold a pattern that takes for ever to match.
    """

    def __init__(self, stream: ReadStream[Item], asked: Callable[[str], None]):
        self._stream, self._asked = stream, asked
        self.set_aside: list[Any] = []
        self._requests = 0

    async def receive(self) -> Item:
        return self._seen(await self._stream.receive())

    async def aclose(self) -> None:
        await self._stream.aclose()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Item:
        return self._seen(await self._stream.__anext__())

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *details: object) -> None:
        await self.aclose()

    def _seen(self, item: Item) -> Item:
        match item:
            case SessionMessage(message=JSONRPCRequest(method=method)) if method != "ping":
                self._requests += 1
                if self._requests > _MOST_REQUESTS:
                    return ValueError("too many requests of the server")
                self._asked(method)
            case SessionMessage(message=JSONRPCResponse(result={"tools": list(entries)} as result)):
                result["tools"] = self._usable(entries)
            case SessionMessage(message=JSONRPCResponse(result={"inputRequests": {**requests}})):
                # How a server of the 2026 protocol asks.
                for request in requests.values():
                    self._asked(str(request.get("method")) if isinstance(request, dict) else "?")
        return item

    def _usable(self, entries: list[Any]) -> list[dict[str, Any]]:
        parts = [known_parts(entry) for entry in entries]
        wrong = [entry for entry, known in zip(entries, parts, strict=True) if known is None]
        self.set_aside += wrong[: _MOST_SET_ASIDE - len(self.set_aside)]
        return [known for known in parts if known is not None]
