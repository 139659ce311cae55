"""The ASGI layer that reads the whole request body before anything else happens.

It limits the size, the time, and the memory that the bodies of one client take together.
"""

import asyncio
import contextlib
from collections import Counter
from collections.abc import Callable, Mapping
from types import MappingProxyType

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from llmchat.server.errors import Busy, Refusal, RequestTimeout, TooLarge, error_response

# How long a client that sends too much may go on sending before the connection closes.
LINGER_S = 2.0
# The bodies of one client may together take this many times the size limit of one body.
BODIES_A_CLIENT = 16


class BodyReader:
    """limit: bytes of one body; timeout_s: for all of it to arrive; larger: other limits, by the
    beginning of a path.

    Starlette's RequestBodyLimitMiddleware limits the size alone, and answers in plain text.
    """

    def __init__(
        self,
        app: ASGIApp,
        limit: int,
        timeout_s: float,
        larger: Mapping[str, int] = MappingProxyType({}),
    ):
        self._app = app
        self._larger = dict(larger)
        self._limit = limit
        self._timeout_s = timeout_s
        self._held: Counter[str] = Counter()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] in ("GET", "HEAD"):
            return await self._app(scope, receive, send)
        client, held, limit = scope["state"]["client"], 0, self._limit_of(scope["path"])

        def hold(size: int) -> None:
            nonlocal held
            held += size
            self._held[client] += size
            if self._held[client] > max(BODIES_A_CLIENT * self._limit, limit):
                raise Busy("too many large requests at the same time", 2)

        try:
            await self._read_and_pass_on(scope, receive, send, limit, hold)
        finally:
            self._held[client] -= held
            if not self._held[client]:
                del self._held[client]

    async def _read_and_pass_on(
        self, scope: Scope, receive: Receive, send: Send, limit: int, hold: Callable[[int], None]
    ) -> None:
        try:
            async with asyncio.timeout(self._timeout_s):
                body = await self._read(scope, receive, limit, hold)
        except Refusal as error:
            await _discard(receive)
            return await error_response(error, close=True)(scope, receive, send)
        except TimeoutError:
            return await error_response(RequestTimeout(), close=True)(scope, receive, send)
        if body is None:
            return
        unread: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

        async def replay() -> Message:
            return unread.pop() if unread else await receive()

        await self._app(scope, replay, send)

    def _limit_of(self, path: str) -> int:
        larger = (size for start, size in self._larger.items() if path.startswith(start))
        return max(self._limit, *larger, 0)

    async def _read(
        self, scope: Scope, receive: Receive, limit: int, hold: Callable[[int], None]
    ) -> bytes | None:
        """The body; None if the client disconnected. `hold` is called with the size of each
        piece. Raises TooLarge, and what `hold` raises."""
        too_large = TooLarge(f"the request body is larger than {limit:,} bytes")
        if int(Headers(scope=scope).get("content-length", 0)) > limit:
            raise too_large
        pieces, size, more = [], 0, True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                return None
            piece = message.get("body", b"")
            pieces.append(piece)
            size += len(piece)
            hold(len(piece))
            if size > limit:
                raise too_large
            more = message.get("more_body", False)
        return b"".join(pieces)


async def _discard(receive: Receive) -> None:
    """Let a client finish sending for a moment: if it is cut off, it cannot read the error."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(LINGER_S):
            while (await receive()).get("more_body"):
                pass
