"""The response for a generated answer. When its client disconnects, generation stops.

Starlette's StreamingResponse and FastAPI's EventSourceResponse send the status before the first
piece exists, so an early error could not become an error response; and they wait without limit for
a client that stops reading.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncGenerator, Callable

import msgspec
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from llmchat.errors import LlmchatError
from llmchat.server.errors import describe_error, error_response

log = logging.getLogger("llmchat.server")
# A client that reads nothing for this long is treated as gone.
WRITE_TIMEOUT_S = 60.0
SSE, JSON = "text/event-stream", "application/json"


def sse_event(value: object, name: str = "") -> bytes:
    """A server-sent event."""
    named = b"event: %s\n" % name.encode() if name else b""
    return b"%sdata: %s\n\n" % (named, msgspec.json.encode(value))


def openai_error_event(error: Exception) -> bytes:
    """The event that ends a stream with an error, as clients of OpenAI expect it."""
    return sse_event(describe_error(error)[2])


class AnswerResponse(Response):
    """Sends the pieces of an answer as they arrive.

    An error before the first piece becomes an error response, a later one an event of the stream:
    what `error_event` makes of it.
    """

    def __init__(
        self,
        pieces: AsyncGenerator[bytes],
        media_type: str,
        error_event: Callable[[Exception], bytes] = openai_error_event,
    ):
        super().__init__(media_type=media_type, headers={"cache-control": "no-store"})
        del self.headers["content-length"]
        self._pieces = pieces
        self._error_event = error_event
        self._writing_since = 0.0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        work = asyncio.ensure_future(self._send(scope, receive, send))
        disconnect = asyncio.ensure_future(_disconnected(receive))
        try:
            await self._first_of(work, disconnect)
        finally:
            for task in (work, disconnect):
                task.cancel()
            await asyncio.gather(work, disconnect, return_exceptions=True)
        if not work.cancelled():
            work.result()

    async def _first_of(self, *tasks: "asyncio.Task[None]") -> None:
        """Wait until one of the tasks ends. Raises _Stalled when the client stops reading."""
        done: set[asyncio.Task[None]] = set()
        while not done:
            done, _ = await asyncio.wait(
                tasks, timeout=WRITE_TIMEOUT_S / 4, return_when=asyncio.FIRST_COMPLETED
            )
            if self._writing_since and time.monotonic() - self._writing_since > WRITE_TIMEOUT_S:
                raise _Stalled("a client stopped reading its stream")

    async def _send(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with contextlib.aclosing(self._pieces) as pieces:
            started = False
            try:
                async for piece in pieces:
                    if not started:
                        await self._start(send)
                        started = True
                    await self._write(send, piece)
            except Exception as error:
                log_unexpected(error)
                if not started:
                    return await error_response(error)(scope, receive, send)
                if self.media_type != SSE:
                    raise
                await self._write(send, self._error_event(error))
        await send({"type": "http.response.body", "body": b""})

    async def _start(self, send: Send) -> None:
        head = {"status": self.status_code, "headers": self.raw_headers}
        await send({"type": "http.response.start", **head})

    async def _write(self, send: Send, piece: bytes) -> None:
        """The timeout is checked by `_first_of`: a timer for each piece would cost more than
        sending the piece."""
        self._writing_since = time.monotonic()
        await send({"type": "http.response.body", "body": piece, "more_body": True})
        self._writing_since = 0.0


class _Stalled(LlmchatError):
    """The client stopped reading."""


def log_unexpected(error: Exception) -> None:
    """Log the stack of an unexpected error; the client does not see it."""
    if not isinstance(error, LlmchatError):
        log.error("an answer failed", exc_info=error)


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
