"""An answer that is made while its client listens: when the client goes, its work ends."""

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncGenerator

import msgspec
from starlette.responses import Response

from llmchat.errors import LlmchatError
from llmchat.server.errors import describe_error
from llmchat.server.middleware import Receive, Scope, Send, respond

log = logging.getLogger("llmchat.server")
# A client that takes no more of a stream for so long is gone.
WRITE_TIMEOUT_S = 60.0
SSE, JSON = "text/event-stream", "application/json"


class AnswerResponse(Response):
    """Sends what `pieces` yields. An error before the first piece becomes a response of its own, later ones an event of the stream."""

    def __init__(self, pieces: AsyncGenerator[bytes], media_type: str):
        super().__init__(media_type=media_type, headers={"cache-control": "no-store"})
        del self.headers["content-length"]
        self._pieces = pieces
        self._writing_since = 0.0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        work = asyncio.ensure_future(self._send(send))
        watch = asyncio.ensure_future(_gone(receive))
        try:
            while not (
                await asyncio.wait(
                    (work, watch), timeout=WRITE_TIMEOUT_S / 4, return_when=asyncio.FIRST_COMPLETED
                )
            )[0]:
                if self._writing_since and time.monotonic() - self._writing_since > WRITE_TIMEOUT_S:
                    raise _Stalled("a client takes no more of its stream")
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
                        await send(
                            {
                                "type": "http.response.start",
                                "status": self.status_code,
                                "headers": self.raw_headers,
                            }
                        )
                        begun = True
                    await self._write(send, piece)
            except Exception as error:
                told(error)
                if not begun:
                    return await respond(send, error)
                if self.media_type != SSE:
                    raise
                await self._write(send, event(describe_error(error)[2]))
        await send({"type": "http.response.body", "body": b""})

    async def _write(self, send: Send, piece: bytes) -> None:
        """Watched from outside: a timer for each piece would cost more than to send it."""
        self._writing_since = time.monotonic()
        await send({"type": "http.response.body", "body": piece, "more_body": True})
        self._writing_since = 0.0


class _Stalled(LlmchatError):
    """The client takes nothing any more."""


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
