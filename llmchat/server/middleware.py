"""What stands before every request, outermost first: the log and the counters, then who may come in, then how large a body may be.

Plain ASGI, so that an answer that streams is never held up.
"""

import asyncio
import contextlib
import logging
import time
from collections import Counter
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import msgspec

from llmchat.errors import LlmchatError
from llmchat.server import request_head
from llmchat.server.errors import (
    Busy,
    Forbidden,
    Refusal,
    TooLarge,
    Unauthorised,
    Unavailable,
    describe_error,
)
from llmchat.server.keys import Key, Keys
from llmchat.server.limits import RateLimit

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

log = logging.getLogger("llmchat.server")
# What needs no key: whether the server runs, and the files of the web page. Everything else does.
_OPEN = ("/", "/health")
_OPEN_FOLDER = "/page/"
# Paths that are only for the user who runs the server, over the Unix socket.
_PRIVATE = "/private/"
_LINGER_S = 2.0
# Of the largest bodies, how many one client may have in the server at the same time.
_BODIES = 16
# Who comes over the Unix socket.
OWNER = "owner"
_KNOWN = (
    "/v1/models",
    "/v1/chat/completions",
    "/v1/completions",
    "/v1/embeddings",
    "/health",
    "/metrics",
    "/api/ps",
    "/api/stop",
)


class AccessLog:
    """A line for each request (never a word of what was said), and a count by path and status. Errors that nobody caught become a 500."""

    def __init__(self, app: App, count: Callable[[str, int], None]):
        self._app = app
        self._count = count

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        started, status = time.perf_counter(), 0

        async def watched(message: MutableMapping[str, Any]) -> None:
            nonlocal status
            status = message.get("status", status)
            await send(message)

        try:
            await self._app(scope, receive, watched)
        except Exception as error:
            if not isinstance(error, LlmchatError):
                log.exception("a request failed")
            if status:
                # The answer is half sent: only the end of the connection can tell.
                raise
            await respond(watched, error)
        finally:
            path = scope["path"] if scope["path"] in _KNOWN else "other"
            self._count(path, status)
            who = scope.get("state", {}).get("client", "-")
            level = logging.DEBUG if scope["path"].startswith(_PRIVATE) else logging.INFO
            log.log(
                level,
                "%s %s %s %d %.0f ms",
                who,
                scope["method"],
                _plain(scope["path"]),
                status,
                1000 * (time.perf_counter() - started),
            )


class AccessControl:
    """Who may come in: the right Host (against DNS rebinding), no foreign Origin (against pages elsewhere), a key where there are keys, and
    not too often. Over the Unix socket comes the user who runs the server.

    keyless: whether requests are answered without a key as long as there has been none. Once there is one, that is over: when the last key
    is removed, nobody comes in.
    """

    def __init__(
        self,
        app: App,
        keys: Keys,
        rate: RateLimit,
        hosts: frozenset[str] | None,
        origins: frozenset[str],
        *,
        keyless: bool = False,
    ):
        self._app = app
        self._keyless = keyless
        self._keys = keys
        self._rate = rate
        self._hosts = hosts
        self._origins = origins

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        headers = {name: value.decode("latin-1") for name, value in scope["headers"]}
        try:
            request_head.check(scope)
            client, user = (
                (OWNER, OWNER) if over_unix_socket(scope) else self._admit(scope, headers)
            )
        except Refusal as error:
            # What the client still sends is not read: the connection ends.
            return await respond(send, error, close=scope["method"] not in ("GET", "HEAD"))
        scope.setdefault("state", {}).update(client=client, user=user)
        await self._app(scope, receive, send)

    def _admit(self, scope: Scope, headers: dict[bytes, str]) -> tuple[str, str | None]:
        """The client's name for the log and the queue, and whose conversations it may see: the holder's of a key, or None."""
        host = headers.get(b"host", "")
        if (name := request_head.host_name(host)) not in (self._hosts or {name}):
            raise Forbidden(f"this server does not answer to the name {name[:100]!r}")
        origin = headers.get(b"origin")
        if (
            origin is not None
            and origin not in self._origins
            and origin.partition("://")[2] != host
        ):
            raise Forbidden(
                "requests from other web pages are not allowed; --cors names those that are"
            )
        path = scope["path"]
        address = scope["client"][0] if scope.get("client") else ""
        if path.startswith(_PRIVATE):
            raise Forbidden("this is for the user who runs the server")
        preflight = scope["method"] == "OPTIONS" and b"access-control-request-method" in headers
        if path in _OPEN or path.startswith(_OPEN_FOLDER) or preflight:
            return address, None
        key = None if self._answers_without_key() else self._holder(headers)
        client = key.name if key else address
        self._rate.spend(client)
        return client, key.user if key else None

    def _answers_without_key(self) -> bool:
        try:
            known = self._keys.all()
        except LlmchatError as error:
            log.error("%s", error.message)
            raise Unavailable("the server cannot read its keys") from None
        self._keyless = self._keyless and not known
        return self._keyless

    def _holder(self, headers: dict[bytes, str]) -> Key:
        kind, _, secret = headers.get(b"authorization", "").partition(" ")
        secret = secret.strip() if kind.lower() == "bearer" else headers.get(b"x-api-key", "")
        if not secret:
            raise Unauthorised("an API key is required: `Authorization: Bearer KEY`")
        key = self._keys.holder(secret)
        if key is None:
            raise Unauthorised("this API key is not known")
        return key


class BodyReader:
    """Reads a body before anything else happens: at most `limit` bytes, all of them within `timeout_s`; of one client at most _BODIES times
    as many at the same time."""

    def __init__(self, app: App, limit: int, timeout_s: float):
        self._app = app
        self._limit = limit
        self._timeout_s = timeout_s
        self._held: Counter[str] = Counter()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] in ("GET", "HEAD"):
            return await self._app(scope, receive, send)
        client, held = scope["state"]["client"], 0

        def hold(size: int) -> None:
            nonlocal held
            held += size
            self._held[client] += size
            if self._held[client] > _BODIES * self._limit:
                raise Busy("too many large requests at the same time", 2)

        try:
            await self._replayed(scope, receive, send, hold)
        finally:
            self._held[client] -= held
            if not self._held[client]:
                del self._held[client]

    async def _replayed(
        self, scope: Scope, receive: Receive, send: Send, hold: Callable[[int], None]
    ) -> None:
        try:
            async with asyncio.timeout(self._timeout_s):
                body = await self._read(scope, receive, hold)
        except TimeoutError:
            error = Refusal("the body did not arrive in time")
            error.status = 408
            return await respond(send, error, close=True)
        except (TooLarge, Busy) as error:
            await _discard(receive)
            return await respond(send, error, close=True)
        if body is None:
            return
        told = False

        async def replay() -> MutableMapping[str, Any]:
            nonlocal told
            if told:
                return await receive()
            told = True
            return {"type": "http.request", "body": body, "more_body": False}

        await self._app(scope, replay, send)

    async def _read(
        self, scope: Scope, receive: Receive, hold: Callable[[int], None]
    ) -> bytes | None:
        """The body; None where the client left. hold: is told of all bytes as they come."""
        length = next(
            (value for name, value in scope["headers"] if name == b"content-length"), b"0"
        )
        refusal = TooLarge(f"the body is larger than {self._limit:,} bytes")
        if int(length) > self._limit:
            raise refusal
        pieces, size, more = [], 0, True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                return None
            pieces.append(message.get("body", b""))
            size += len(pieces[-1])
            hold(len(pieces[-1]))
            if size > self._limit:
                raise refusal
            more = message.get("more_body", False)
        return b"".join(pieces)


async def _discard(receive: Receive) -> None:
    """Let a client finish what it is sending, for a moment: one that is cut off in the middle would not read why."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_LINGER_S):
            while (message := await receive())["type"] == "http.request" and message.get(
                "more_body"
            ):
                pass


def over_unix_socket(scope: Scope) -> bool:
    return scope.get("server") is not None and scope["server"][1] is None


async def respond(send: Send, error: Exception, *, close: bool = False) -> None:
    """Answer with an error in OpenAI's form. close: end the connection, because the rest of the request was not read."""
    status, extra, body = describe_error(error)
    content = msgspec.json.encode(body)
    headers = {
        "content-type": "application/json",
        "content-length": str(len(content)),
        **extra,
        **({"connection": "close"} if close else {}),
    }
    raw = [
        (name.lower().encode(), value.encode("latin-1", "replace"))
        for name, value in headers.items()
    ]
    await send({"type": "http.response.start", "status": status, "headers": raw})
    await send({"type": "http.response.body", "body": content})


def _plain(path: str) -> str:
    """A path for one line of a log."""
    return path[:200].encode("unicode_escape").decode()
