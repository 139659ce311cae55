"""Errors in Anthropic's form: `{"type": "error", "error": {"type", "message"}, "request_id"}`.

https://platform.claude.com/docs/en/api/errors. All layers of the server raise their errors in
OpenAI's form; the outermost layer translates those of these paths.
"""

import json
import uuid
from typing import Any

import msgspec
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from llmchat.server.errors import BadRequest, describe_error
from llmchat.server.messages_api.events import event

PATH = "/v1/messages"
_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
}
_NO_THREADS = "thread_unsupported_request"
# What our fields of a ChatRequest are called there.
_NAMES = (
    ("function.parameters", "input_schema"),
    ("response_format", "output_config.format"),
    ("reasoning_effort", "output_config.effort"),
)


class NoThreads(BadRequest):
    """The error for `thread`, a conversation that the server would keep. Its code makes the SDK
    send the whole conversation instead."""

    def __init__(self) -> None:
        message = "`thread` is not supported; send the whole conversation"
        super().__init__(message, param="thread", code=_NO_THREADS)


def error_event(error: Exception) -> bytes:
    """The event that ends a stream with an error."""
    status, _, body = describe_error(error)
    return event("error", error=_described(status, body))


def _described(status: int, body: dict[str, Any]) -> dict[str, Any]:
    """The type and the message of an error in OpenAI's form."""
    kind = _TYPES.get(status, "api_error" if status >= 500 else "invalid_request_error")
    described = {"type": kind, "message": _message(body["error"])}
    if body["error"]["code"] != _NO_THREADS:
        return described
    return described | {"details": {"error_code": _NO_THREADS, "unsupported": ["thread"]}}


def _message(error: dict[str, Any]) -> str:
    """The message with the name of the field, as Anthropic has no place of its own for it."""
    message: str = error["message"]
    if error["code"] == "context_length_exceeded":
        # Clients know by these words that they have to shorten the conversation.
        return f"prompt is too long: {message}"
    param = error["param"] or ""
    for ours, theirs in _NAMES:
        param = param.replace(ours, theirs)
        message = message.replace(f"`{ours}`", f"`{theirs}`")
    return message if not param or param in message else f"{param}: {message}"


class MessagesLayer:
    """The ASGI layer that gives responses of these paths an id, and errors Anthropic's form."""

    def __init__(self, app: ASGIApp):
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope.get("path", "")
        if scope["type"] == "http" and (path == PATH or path.startswith(f"{PATH}/")):
            send = _Translator(send)
        await self._app(scope, receive, send)


class _Translator:
    """Passes the messages of a response on, but an error only when it is whole."""

    def __init__(self, send: Send):
        self._send = send
        self._id = f"req_{uuid.uuid4().hex}"
        self._head: Message | None = None
        self._body = b""

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            MutableHeaders(raw=message["headers"])["request-id"] = self._id
            if message["status"] >= 400:
                self._head = message
                return
        if self._head is None:
            return await self._send(message)
        self._body += message.get("body", b"")
        if not message.get("more_body"):
            await self._send_error(self._head)

    async def _send_error(self, head: Message) -> None:
        error = _described(head["status"], json.loads(self._body))
        body = msgspec.json.encode({"type": "error", "error": error, "request_id": self._id})
        MutableHeaders(raw=head["headers"])["content-length"] = str(len(body))
        await self._send(head)
        await self._send({"type": "http.response.body", "body": body})
