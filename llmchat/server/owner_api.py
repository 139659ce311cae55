"""The user's own terminal as a client, over the Unix socket: it renders its prompts itself and leaves only the model to the server.

engines/remote.py is the other end. Both must be of the same version; otherwise the terminal loads the model itself.
"""

import asyncio
import functools
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import TypeVar

import msgspec
from fastapi import APIRouter, Request
from starlette.responses import Response

from llmchat.background.engine import PROTOCOL, Ask, Count, Encode, Facts, Hello, Line, Stream
from llmchat.chat import build_request
from llmchat.engines import Chunk
from llmchat.models.open_model import model_folders
from llmchat.server.access_control import OWNER
from llmchat.server.errors import Refusal
from llmchat.server.jobs import merged_events
from llmchat.server.openai_format import encode_json
from llmchat.server.state import ServerState
from llmchat.server.streaming_response import JSON, AnswerResponse

LINES = "application/x-ndjson"
Asked = TypeVar("Asked", Hello, Count, Encode, Ask, Stream)


class Conflict(Refusal):
    status = 409


def router(state: ServerState) -> APIRouter:
    routes = APIRouter(include_in_schema=False)

    @routes.post("/private/open")
    async def open_(request: Request) -> Response:
        asked = await _decoded(request, Hello)
        if asked.protocol != PROTOCOL or asked.places != model_folders(state.catalog.world):
            raise Conflict("the terminal is of another version, or keeps its models elsewhere")
        key, spec = await asyncio.to_thread(
            state.catalog.spec_of_preset, asked.preset, asked.options
        )
        async with state.pool.lease(spec, client=OWNER) as lease:
            return _json(
                Facts(
                    key,
                    lease.engine.context,
                    lease.engine.describe(),
                    lease.preset,
                    lease.made_by,
                )
            )

    @routes.post("/private/count")
    async def count(request: Request) -> Response:
        asked = await _decoded(request, Count)
        async with state.pool.lease(state.catalog.known(asked.key), client=OWNER) as lease:
            return _json(
                await state.prompt_workers.run(
                    OWNER,
                    lease.deadline,
                    lambda: [lease.engine.count(text) for text in asked.texts],
                )
            )

    @routes.post("/private/encode")
    async def encode(request: Request) -> Response:
        asked = await _decoded(request, Encode)
        async with state.pool.lease(state.catalog.known(asked.key), client=OWNER) as lease:
            return _json(
                await state.prompt_workers.run(
                    OWNER,
                    lease.deadline,
                    lambda: [lease.engine.encode(prompt) for prompt in asked.prompts],
                )
            )

    @routes.post("/private/ask")
    async def ask_(request: Request) -> Response:
        asked = await _decoded(request, Ask)
        async with state.pool.lease(state.catalog.known(asked.key), client=OWNER) as lease:
            engine = lease.engine
            work = functools.partial(
                build_request,
                asked.conversation,
                lease.preset,
                engine,
                engine.context,
                asked.sampling,
            )
            return _json(await state.prompt_workers.run(OWNER, lease.deadline, work))

    @routes.post("/private/stream")
    async def stream(request: Request) -> Response:
        return AnswerResponse(_lines(state, await _decoded(request, Stream)), LINES)

    return routes


async def _decoded(request: Request, kind: type[Asked]) -> Asked:
    """Raises Conflict where the two sides do not speak the same."""
    try:
        return msgspec.json.decode(await request.body(), type=kind)
    except msgspec.MsgspecError as error:
        raise Conflict(f"the terminal is of another version: {error}") from error


async def _lines(state: ServerState, asked: Stream) -> AsyncGenerator[bytes]:
    async with state.pool.lease(state.catalog.known(asked.key), client=OWNER) as lease:
        jobs = lease.scheduler.submit(
            [(asked.prompt, asked.sampling)], lease.adapters, OWNER, lease.deadline
        )
        try:
            async with aclosing(merged_events(jobs)) as coming:
                async for _, events in coming:
                    lines = (
                        Line(chunk=event) if isinstance(event, Chunk) else Line(finish=event)
                        for event in events
                    )
                    yield b"".join(encode_json(line) + b"\n" for line in lines)
        finally:
            lease.scheduler.cancel(jobs)


def _json(value: object) -> Response:
    return Response(encode_json(value), media_type=JSON)
