"""GET /api/search: finds stored conversations of the web page by the text of their messages."""

from collections.abc import Iterator
from itertools import islice
from typing import Annotated

import msgspec
from fastapi import APIRouter, Query
from msgspec import Struct
from starlette.responses import Response

from llmchat.server.conversation_store import ConversationNotFound, ConversationStore
from llmchat.server.conversations import User

MAX_RESULTS = 100
# The characters before and after a match in an excerpt.
_BEFORE, _AFTER = 30, 90


class Message(Struct):
    text: str = ""


class Conversation(Struct):
    """The searchable part of a conversation, as the page stores it."""

    messages: dict[str, Message] = {}


class Found(Struct, frozen=True):
    id: str
    excerpt: str


_decode = msgspec.json.Decoder(Conversation).decode


def excerpt(value: bytes, wanted: str) -> str | None:
    """The text around the first match, ignoring case; None if there is none."""
    try:
        messages = _decode(value).messages.values()
    except msgspec.MsgspecError:
        return None
    for message in messages:
        start = message.text.lower().find(wanted.lower())
        if start >= 0:
            text = message.text[max(0, start - _BEFORE) : start + _AFTER]
            left = "…" if start > _BEFORE else ""
            right = "…" if start + _AFTER < len(message.text) else ""
            return f"{left}{' '.join(text.split())}{right}"
    return None


def search(store: ConversationStore, user: str, wanted: str) -> Iterator[Found]:
    """The latest first."""
    for summary in store.list(user):
        try:
            _, value = store.get(user, summary.id)
        except ConversationNotFound:
            continue
        if (text := excerpt(value, wanted)) is not None:
            yield Found(summary.id, text)


def router(store: ConversationStore | None) -> APIRouter:
    """Without a store, the route does not exist."""
    routes = APIRouter(prefix="/api")
    if store is None:
        return routes

    @routes.get("/search")
    def find(user: User, text: Annotated[str, Query(min_length=1, max_length=200)]) -> Response:
        data = list(islice(search(store, user, text), MAX_RESULTS))
        return Response(
            msgspec.json.encode({"object": "list", "data": data}),
            media_type="application/json",
            headers={"Cache-Control": "no-store"},
        )

    return routes
