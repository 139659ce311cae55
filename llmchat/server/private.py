"""The user's own terminal as a client, over the Unix socket: it renders its prompts itself and leaves only the model to the server.

engines/remote.py is the other end. Both sides must be of the same version; otherwise the terminal loads the model itself.
"""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any, TypeVar

import msgspec
from fastapi import APIRouter, Request
from starlette.responses import Response

from llmchat.engines import Chunk, Finish
from llmchat.engines.remote import PROTOCOL, Count, Encode, Hello, Stream
from llmchat.server.answering import JSON, Answering
from llmchat.server.errors import Refusal
from llmchat.server.front import OWNER
from llmchat.server.scheduler import together
from llmchat.server.state import State
from llmchat.server.usage import encoded

Asked = TypeVar("Asked", Hello, Count, Encode, Stream)
LINES = "application/x-ndjson"


class Conflict(Refusal):
    status = 409


def router(state: State) -> APIRouter:
    routes = APIRouter(include_in_schema=False)

    @routes.post("/private/open")
    async def open_(request: Request) -> Response:
        asked = decoded(await request.body(), Hello)
        recipe = await asyncio.to_thread(state.catalog.recipe_of, asked.options)
        if recipe.made_by != asked.made_by:
            raise Conflict("the server would load something else under this name")
        async with state.pool.lease(recipe) as served:
            facts = {"context": served.engine.context, "describe": served.engine.describe()}
        return Response(encoded(facts), media_type=JSON)

    @routes.post("/private/count")
    async def count(request: Request) -> Response:
        asked = decoded(await request.body(), Count)
        recipe = await asyncio.to_thread(state.catalog.recipe_of, asked.options)
        async with state.pool.lease(recipe) as served:
            counts = [served.engine.count(text) for text in asked.texts]
        return Response(encoded(counts), media_type=JSON)

    @routes.post("/private/encode")
    async def encode(request: Request) -> Response:
        asked = decoded(await request.body(), Encode)
        recipe = await asyncio.to_thread(state.catalog.recipe_of, asked.options)
        async with state.pool.lease(recipe) as served:
            ids = [served.engine.encode(prompt) for prompt in asked.prompts]
        return Response(encoded(ids), media_type=JSON)

    @routes.post("/private/stream")
    async def stream(request: Request) -> Response:
        return Answering(_lines(state, decoded(await request.body(), Stream)), LINES)

    return routes


def decoded(body: bytes, kind: type[Asked]) -> Asked:
    """Raises Conflict where the two sides do not speak the same."""
    try:
        asked = msgspec.json.decode(body, type=kind)
    except msgspec.MsgspecError as error:
        raise Conflict(f"the terminal is of another version: {error}") from error
    if asked.protocol != PROTOCOL:
        raise Conflict("the terminal is of another version")
    return asked


async def _lines(state: State, asked: Stream) -> AsyncGenerator[bytes]:
    recipe = await asyncio.to_thread(state.catalog.recipe_of, asked.options)
    async with state.pool.lease(recipe) as served:
        tickets = served.scheduler.submit([(asked.prompt, asked.sampling)], served.adapters, OWNER)
        try:
            async with aclosing(together(tickets)) as coming:
                async for _, events in coming:
                    yield b"".join(_line(event) for event in events)
        finally:
            served.scheduler.cancel(tickets)


def _line(event: Chunk | Finish) -> bytes:
    kind: dict[str, Any] = {"chunk": event} if isinstance(event, Chunk) else {"finish": event}
    return encoded(kind) + b"\n"
