"""An answer that is made while its client listens: when the client goes, its work ends."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator

import msgspec
from starlette.responses import Response

from llmchat.errors import LlmchatError
from llmchat.server.errors import described
from llmchat.server.front import Receive, Scope, Send, respond

log = logging.getLogger("llmchat.server")
# A client that takes no more of a stream for so long is gone.
WRITE_TIMEOUT_S = 60.0
SSE, JSON = "text/event-stream", "application/json"


class Answering(Response):
    """Sends what `pieces` yields. An error before the first piece becomes a response of its own, later ones an event of the stream."""

    def __init__(self, pieces: AsyncGenerator[bytes], media_type: str):
        super().__init__(media_type=media_type, headers={"cache-control": "no-store"})
        del self.headers["content-length"]
        self._pieces = pieces

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        work = asyncio.ensure_future(self._send(send))
        watch = asyncio.ensure_future(_gone(receive))
        try:
            await asyncio.wait((work, watch), return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (work, watch):
                task.cancel()
            await asyncio.gather(work, watch, return_exceptions=True)
        if not work.cancelled():
            work.result()

    async def _send(self, send: Send) -> None:
        async with contextlib.aclosing(self._pieces) as pieces:
            begun = False
            try:
                async for piece in pieces:
                    if not begun:
                        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
                        begun = True
                    await _written(send, piece)
            except _Stalled:
                raise
            except Exception as error:
                told(error)
                if not begun:
                    return await respond(send, error)
                if self.media_type != SSE:
                    raise
                await _written(send, event(described(error)[2]))
        await send({"type": "http.response.body", "body": b""})


class _Stalled(LlmchatError):
    """The client takes nothing any more."""


async def _written(send: Send, piece: bytes) -> None:
    try:
        async with asyncio.timeout(WRITE_TIMEOUT_S):
            await send({"type": "http.response.body", "body": piece, "more_body": True})
    except TimeoutError:
        raise _Stalled("a client takes no more of its stream") from None


def event(value: object) -> bytes:
    """A server-sent event."""
    return b"data: " + msgspec.json.encode(value) + b"\n\n"


def told(error: Exception) -> None:
    """Keep the stack of an error that nobody foresaw; the client is not shown it."""
    if not isinstance(error, LlmchatError):
        log.error("an answer failed", exc_info=error)


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
