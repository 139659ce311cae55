"""GET /api/search: the stored conversations of the web page whose messages contain a text, with a piece of the first such message."""

from collections.abc import Iterator
from typing import Annotated

import msgspec
from fastapi import APIRouter, Query
from msgspec import Struct
from starlette.responses import Response

from llmchat.server.conversation_store import ConversationNotFound, ConversationStore
from llmchat.server.conversations import User

MOST = 100
_BEFORE, _AFTER = 30, 90


class Message(Struct):
    text: str = ""


class Conversation(Struct):
    """What is searched of a conversation as the page wrote it."""

    messages: dict[str, Message] = {}


class Found(Struct, frozen=True):
    id: str
    excerpt: str


_decoded = msgspec.json.Decoder(Conversation).decode


def excerpt(value: bytes, wanted: str) -> str | None:
    """The surroundings of the first place where `wanted` is, upper and lower case alike; None where it is nowhere."""
    try:
        messages = _decoded(value).messages.values()
    except msgspec.MsgspecError:
        return None
    for message in messages:
        if (at := message.text.lower().find(wanted.lower())) >= 0:
            piece = " ".join(message.text[max(0, at - _BEFORE) : at + _AFTER].split())
            return f"{'…' if at > _BEFORE else ''}{piece}{'…' if at + _AFTER < len(message.text) else ''}"
    return None


def search(store: ConversationStore, user: str, wanted: str) -> Iterator[Found]:
    """Latest first."""
    for head in store.list(user):
        try:
            _, value = store.get(user, head.id)
        except ConversationNotFound:
            continue
        if (piece := excerpt(value, wanted)) is not None:
            yield Found(head.id, piece)


def router(store: ConversationStore | None) -> APIRouter:
    """Without a store there is nothing to search, and no such path."""
    routes = APIRouter(prefix="/api")
    if store is None:
        return routes

    @routes.get("/search")
    def found(user: User, text: Annotated[str, Query(min_length=1, max_length=200)]) -> Response:
        data = [one for _, one in zip(range(MOST), search(store, user, text), strict=False)]
        return Response(
            msgspec.json.encode({"object": "list", "data": data}),
            media_type="application/json",
            headers={"Cache-Control": "no-store"},
        )

    return routes
