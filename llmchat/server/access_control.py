"""The ASGI layer that decides who may send requests: host name, origin, API key, rate limit.

Requests over the Unix socket come from the user who runs the server, and are always allowed.
"""

import logging

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from llmchat.errors import LlmchatError
from llmchat.server import request_head
from llmchat.server.access_log import OWNER_PATHS
from llmchat.server.errors import Forbidden, Refusal, Unauthorised, Unavailable, error_response
from llmchat.server.keys import Key, Keys
from llmchat.server.limits import RateLimit

log = logging.getLogger("llmchat.server")
# The client's name, and the user, of requests over the Unix socket.
OWNER = "owner"
# These need no key: the health check, and the files of the web page.
_PUBLIC_PATHS = ("/", "/health")
_PUBLIC_FOLDER = "/page/"


class AccessControl:
    """Checks the Host header (against DNS rebinding), the Origin (against other web pages), the
    API key, and the rate.

    keyless: answer without a key until the first key is created. From then on a key is required,
    even after the last key has been removed.
    """

    def __init__(
        self,
        app: ASGIApp,
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
        try:
            request_head.check_head(scope)
            client, user = self._identify(scope)
        except Refusal as error:
            # The rest of the request is not read, so the connection cannot be used again.
            close = scope["method"] not in ("GET", "HEAD")
            return await error_response(error, close=close)(scope, receive, send)
        scope.setdefault("state", {}).update(client=client, user=user)
        await self._app(scope, receive, send)

    def _identify(self, scope: Scope) -> tuple[str, str | None]:
        """The client's name for the log and the queues, and the user whose conversations the
        client may read: the holder of a key, or None. Raises Refusal."""
        if over_unix_socket(scope):
            return OWNER, OWNER
        headers, path = Headers(scope=scope), scope["path"]
        self._check_host(headers.get("host", ""))
        self._check_origin(headers)
        if path.startswith(OWNER_PATHS):
            raise Forbidden("only the user who runs the server may use this path")
        address = scope["client"][0] if scope.get("client") else ""
        preflight = scope["method"] == "OPTIONS" and "access-control-request-method" in headers
        if path in _PUBLIC_PATHS or path.startswith(_PUBLIC_FOLDER) or preflight:
            return address, None
        key = None if self._answers_without_key() else self._holder(headers)
        client = key.name if key else address
        self._rate.spend(client)
        return client, key.user if key else None

    def _check_host(self, host: str) -> None:
        # Starlette's TrustedHostMiddleware does the same lookup, but has no hook for its response,
        # which is plain text where OpenAI's clients expect JSON, and it cannot exempt the Unix
        # socket. It also treats `*.name` as a wildcard.
        name = request_head.host_name(host)
        if self._hosts is not None and name not in self._hosts:
            raise Forbidden(f"this server does not accept the host name {name[:100]!r}")

    def _check_origin(self, headers: Headers) -> None:
        origin = headers.get("origin")
        if origin is None or origin in self._origins:
            return
        if origin.partition("://")[2] != headers.get("host", ""):
            raise Forbidden("requests from other web pages are blocked; allow one with --cors")

    def _answers_without_key(self) -> bool:
        try:
            known = self._keys.all()
        except LlmchatError as error:
            log.error("%s", error.message)
            raise Unavailable("the server cannot read its API keys") from None
        self._keyless = self._keyless and not known
        return self._keyless

    def _holder(self, headers: Headers) -> Key:
        scheme, _, secret = headers.get("authorization", "").partition(" ")
        secret = secret.strip() if scheme.lower() == "bearer" else headers.get("x-api-key", "")
        if not secret:
            raise Unauthorised("an API key is required: `Authorization: Bearer KEY`")
        key = self._keys.holder(secret)
        if key is None:
            raise Unauthorised("invalid API key")
        return key


def over_unix_socket(scope: Scope) -> bool:
    return scope.get("server") is not None and scope["server"][1] is None
