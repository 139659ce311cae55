"""The outermost ASGI layer: logs and counts every request, and turns unexpected errors into a 500.

The log never contains prompts or answers. Plain ASGI, so that streamed answers are not buffered.
"""

import logging
import time
from collections.abc import Callable

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from llmchat.errors import LlmchatError
from llmchat.server.errors import error_response

log = logging.getLogger("llmchat.server")
# Metrics use these paths as labels; all others share the label "other", so that clients cannot
# create any number of labels.
_COUNTED_PATHS = (
    "/v1/models",
    "/v1/chat/completions",
    "/v1/completions",
    "/v1/responses",
    "/v1/messages",
    "/v1/messages/count_tokens",
    "/v1/embeddings",
    "/v1/rerank",
    "/health",
    "/metrics",
    "/api/ps",
    "/api/stop",
    "/api/tools",
    "/api/tools/run",
)
OWNER_PATHS = "/private/"


class AccessLog:
    """`count(path, status)` is called once for each request."""

    def __init__(self, app: ASGIApp, count: Callable[[str, int], None]):
        self._app = app
        self._count = count

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        started, status = time.perf_counter(), 0

        async def send_and_note_status(message: Message) -> None:
            nonlocal status
            status = message.get("status", status)
            await send(message)

        try:
            await self._app(scope, receive, send_and_note_status)
        except Exception as error:
            if not isinstance(error, LlmchatError):
                log.exception("a request failed")
            if status:
                # Part of the answer is sent; only closing the connection can signal the error.
                raise
            await error_response(error)(scope, receive, send_and_note_status)
        finally:
            self._report(scope, status, time.perf_counter() - started)

    def _report(self, scope: Scope, status: int, seconds: float) -> None:
        path = scope["path"]
        self._count(path if path in _COUNTED_PATHS else "other", status)
        client = scope.get("state", {}).get("client", "-")
        level = logging.DEBUG if path.startswith(OWNER_PATHS) else logging.INFO
        line = "%s %s %s %d %.0f ms"
        log.log(level, line, client, scope["method"], _printable(path), status, 1000 * seconds)


def _printable(path: str) -> str:
    """The path without control characters or line breaks, and not too long."""
    return path[:200].encode("unicode_escape").decode()
