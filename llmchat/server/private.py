"""The user's own terminal as a client, over the Unix socket: it renders its prompts itself and leaves only the model to the server.

engines/remote.py is the other end. Both must be of the same version; otherwise the terminal loads the model itself.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from typing import TypeVar

import msgspec
from fastapi import APIRouter, Request
from starlette.responses import Response

from llmchat.engines import Chunk
from llmchat.engines.remote import PROTOCOL, Asked, Count, Encode, Facts, Line, Stream
from llmchat.server.answering import JSON, Answering
from llmchat.server.errors import Refusal
from llmchat.server.front import OWNER
from llmchat.server.pool import Served
from llmchat.server.scheduler import together
from llmchat.server.state import State
from llmchat.server.usage import encoded

LINES = "application/x-ndjson"
_Asked = TypeVar("_Asked", bound=Asked)


class Conflict(Refusal):
    status = 409


def router(state: State) -> APIRouter:
    routes = APIRouter(include_in_schema=False)

    @routes.post("/private/open")
    async def open_(request: Request) -> Response:
        async with _served(state, await _decoded(request, Asked)) as served:
            return _json(Facts(served.engine.context, served.engine.describe()))

    @routes.post("/private/count")
    async def count(request: Request) -> Response:
        asked = await _decoded(request, Count)
        async with _served(state, asked) as served:
            return _json([served.engine.count(text) for text in asked.texts])

    @routes.post("/private/encode")
    async def encode(request: Request) -> Response:
        asked = await _decoded(request, Encode)
        async with _served(state, asked) as served:
            return _json([served.engine.encode(prompt) for prompt in asked.prompts])

    @routes.post("/private/stream")
    async def stream(request: Request) -> Response:
        return Answering(_lines(state, await _decoded(request, Stream)), LINES)

    return routes


async def _decoded(request: Request, kind: type[_Asked]) -> _Asked:
    """Raises Conflict where the two sides do not speak the same."""
    content = await request.body()
    try:
        asked = msgspec.json.decode(content, type=kind)
    except msgspec.MsgspecError as error:
        raise Conflict(f"the terminal is of another version: {error}") from error
    if asked.protocol != PROTOCOL:
        raise Conflict("the terminal is of another version")
    return asked


@asynccontextmanager
async def _served(state: State, asked: Asked) -> AsyncIterator[Served]:
    """The model that the terminal means. Raises Conflict where this server, with its own environment, finds another one under the name."""
    recipe = await asyncio.to_thread(state.catalog.recipe_of, asked.options)
    if recipe.made_by != asked.made_by:
        raise Conflict("the server has another model under this name")
    async with state.pool.lease(recipe) as served:
        yield served


async def _lines(state: State, asked: Stream) -> AsyncGenerator[bytes]:
    async with _served(state, asked) as served:
        tickets = served.scheduler.submit([(asked.prompt, asked.sampling)], served.adapters, OWNER)
        try:
            async with aclosing(together(tickets)) as coming:
                async for _, events in coming:
                    lines = (Line(chunk=event) if isinstance(event, Chunk) else Line(finish=event) for event in events)
                    yield b"".join(encoded(line) + b"\n" for line in lines)
        finally:
            served.scheduler.cancel(tickets)


def _json(value: object) -> Response:
    return Response(encoded(value), media_type=JSON)
