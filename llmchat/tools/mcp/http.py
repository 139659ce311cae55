"""A server at an address: streamable HTTP, with a limit for what it may send at once."""

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager

import httpx2
from mcp.client._transport import TransportStreams
from mcp.client.streamable_http import streamable_http_client

from llmchat.errors import NetworkError, UsageError
from llmchat.tools.mcp.config import Server
from llmchat.tools.mcp.definitions import clean
from llmchat.tools.mcp.stdio import LONGEST_MESSAGE

_CONNECT_S = 10.0
_LOOPBACK = ("localhost", "127.0.0.1", "::1")


class _Bounded(httpx2.AsyncByteStream):
    """The body of a response, up to a limit."""

    def __init__(self, body: httpx2.AsyncByteStream):
        self._body = body

    async def __aiter__(self) -> AsyncIterator[bytes]:
        size = 0
        async for data in self._body:
            size += len(data)
            if size > LONGEST_MESSAGE:
                # The SDK answers the call with it, and keeps the connection.
                raise httpx2.StreamError(f"more than {LONGEST_MESSAGE // 1_000_000} MB")
            yield data

    async def aclose(self) -> None:
        await self._body.aclose()


async def _bound(response: httpx2.Response) -> None:
    """Limit the body, unless it is a stream of events: the SDK limits each of those.

    Raises DecodingError for a packed body: a small one may unpack to one that passes the limit.
    """
    packed = response.headers.get("content-encoding", "identity")
    if packed != "identity":
        raise httpx2.DecodingError(f"unexpected content encoding `{clean(packed, 40)}`")
    events = response.headers.get("content-type", "").lower().startswith("text/event-stream")
    if not events and isinstance(response.stream, httpx2.AsyncByteStream):
        response.stream = _Bounded(response.stream)


@asynccontextmanager
async def connected(
    server: Server, env: Mapping[str, str], refused: Callable[[int], None]
) -> AsyncIterator[TransportStreams]:
    """Exchange messages with a server.

    Raises UsageError for an invalid address or header, and NetworkError in offline mode.

    refused: receives the status of a response that is an error, which the SDK does not report.
    """
    url = _checked(server)
    offline = env.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE")
    if offline and url.host not in _LOOPBACK:
        raise NetworkError("offline mode is on", "leave --offline and HF_HUB_OFFLINE out")

    async def note_status(response: httpx2.Response) -> None:
        if response.status_code >= 400:
            refused(response.status_code)

    client = httpx2.AsyncClient(
        headers={**server.headers, "accept-encoding": "identity"},
        # The time of a call is limited where it is made.
        timeout=httpx2.Timeout(_CONNECT_S, read=None),
        event_hooks={"response": [_bound, note_status]},
    )
    async with (
        client,
        streamable_http_client(
            server.url, http_client=client, max_sse_event_size=LONGEST_MESSAGE
        ) as streams,
    ):
        yield streams


def _checked(server: Server) -> httpx2.URL:
    # What they hold may be a key, so it is not shown.
    if not all((name + value).isprintable() for name, value in server.headers.items()):
        raise UsageError("a header of it has an invalid character")
    try:
        httpx2.Headers(server.headers)
        url = httpx2.URL(server.url)
    except (httpx2.InvalidURL, UnicodeEncodeError) as error:
        raise UsageError("its `url` or a header is invalid") from error
    if url.scheme not in ("http", "https") or not url.host:
        raise UsageError("its `url` is not an address of http or https")
    return url
