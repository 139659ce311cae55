"""The web page's stored conversations over HTTP: GET /api/settings, GET /api/conversations, and
GET, PUT, DELETE /api/conversations/{id}.

A PUT names the version it replaces (`If-Match`, or `If-None-Match: *` for a new conversation). If
another window was faster it gets a 412, and the page merges both versions.
"""

import re
from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Depends, Header
from fastapi import Path as InPath
from msgspec import Struct
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response

from llmchat import __version__
from llmchat.server import local_peer
from llmchat.server.access_control import OWNER
from llmchat.server.conversation_store import ConversationStore
from llmchat.server.errors import BadRequest, Forbidden, Refusal


class PreconditionRequired(Refusal):
    status = 428

    def __init__(self) -> None:
        super().__init__(
            'a write requires `If-Match: "VERSION"`, or `If-None-Match: *` for a new conversation'
        )


class PutBody(Struct):
    """conversation: any JSON object; its bytes are stored unchanged."""

    title: Annotated[str, msgspec.Meta(max_length=200)]
    conversation: msgspec.Raw
    pinned: bool = False


Id = Annotated[str, InPath(pattern=r"^[0-9a-f]{24}$")]
_PUT_SCHEMA = {
    "type": "object",
    "required": ["title", "conversation"],
    "properties": {
        "title": {"type": "string", "maxLength": 200},
        "conversation": {"type": "object"},
        "pinned": {"type": "boolean"},
    },
}
_PUT_BODY = {
    "requestBody": {"required": True, "content": {"application/json": {"schema": _PUT_SCHEMA}}}
}


def _errors(*statuses: int) -> dict[int | str, dict[str, Any]]:
    return {status: {"description": "An error in OpenAI's form."} for status in statuses}


def router(
    store: ConversationStore | None, *, tools: bool = False, files: bool = False
) -> APIRouter:
    """store: None if the server keeps no history; tools: whether it has tools; files: whether chats
    may have files. /api/settings reports all three.

    The user of a request is `request.state.user`.
    """
    routes = APIRouter(prefix="/api")

    @routes.get("/settings")
    async def settings() -> dict[str, Any]:
        has = {"history": store is not None, "tools": tools, "files": files}
        return {**has, "version": __version__}

    if store is not None:
        _add_conversations(routes, store)
    return routes


def user_of(request: Request, what: str) -> str:
    """The user whose things a request may use.

    Without a key it must come from the user who runs the server: other users of this machine can
    also connect to the loopback address.
    """
    if request.state.user is not None:
        return str(request.state.user)
    if not local_peer.is_same_user(request.scope.get("client"), request.scope.get("server")):
        raise Forbidden(
            f"{what} belong to the user who runs the server; "
            "`llmchat serve keys add NAME` gives another user a key"
        )
    return OWNER


def _user(request: Request) -> str:
    return user_of(request, "these conversations")


# FastAPI calls `_user` in a thread, which it needs because it reads files in /proc.
User = Annotated[str, Depends(_user)]


def _add_conversations(routes: APIRouter, store: ConversationStore) -> None:
    @routes.get("/conversations")
    def list_all(user: User) -> Response:
        return _json({"object": "list", "data": store.list(user)})

    @routes.get("/conversations/{id}", responses=_errors(404))
    def get(user: User, id: Id) -> Response:
        version, value = store.get(user, id)
        return _json({"id": id, "version": version, "conversation": msgspec.Raw(value)}, version)

    @routes.put(
        "/conversations/{id}", openapi_extra=_PUT_BODY, responses=_errors(400, 404, 412, 428, 507)
    )
    async def put(
        request: Request,
        user: User,
        id: Id,
        if_match: Annotated[str | None, Header()] = None,
        if_none_match: Annotated[str | None, Header()] = None,
    ) -> Response:
        replaces = _replaced_version(if_match, if_none_match)
        title, value, pinned = _decode(await request.body())
        version = await run_in_threadpool(store.put, user, id, title, value, replaces, pinned)
        return _json({"id": id, "version": version}, version)

    @routes.delete("/conversations/{id}", status_code=204, responses=_errors(404))
    def remove(user: User, id: Id) -> None:
        store.remove(user, id)


def _replaced_version(if_match: str | None, if_none_match: str | None) -> int:
    if if_none_match == "*" and if_match is None:
        return 0
    version = re.fullmatch(r'"([1-9]\d{0,17})"', if_match or "", re.ASCII)
    if version is None or if_none_match is not None:
        raise PreconditionRequired
    return int(version[1])


def _decode(body: bytes) -> tuple[str, bytes, bool]:
    """Title, conversation and whether it is pinned. Raises BadRequest."""
    try:
        body.decode()
        written = msgspec.json.decode(body, type=PutBody)
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise BadRequest(f"invalid conversation: {error}") from error
    value = bytes(written.conversation)
    if not value.lstrip().startswith(b"{"):
        message = "invalid conversation: `conversation` must be a JSON object"
        raise BadRequest(message, param="conversation")
    return written.title, value, written.pinned


def _json(value: object, version: int | None = None) -> Response:
    headers = {"Cache-Control": "no-store"} | ({"ETag": f'"{version}"'} if version else {})
    return Response(msgspec.json.encode(value), media_type="application/json", headers=headers)
