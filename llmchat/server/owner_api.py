"""Routes for the server's own user over the Unix socket: `llmchat chat` and others use a model that
the server has loaded, and render prompts themselves.

background/engine.py is the client. If the versions differ, the client loads the model itself.
"""

import asyncio
import functools
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Any, TypeVar

import msgspec
from fastapi import APIRouter, Request
from starlette.responses import Response

from llmchat.background.engine import PROTOCOL, Ask, Count, Encode, Facts, Hello, Line, Stream
from llmchat.engines import Chunk
from llmchat.engines.capabilities import BatchEngine, FollowsGrammars
from llmchat.models.open_model import model_folders
from llmchat.reply import build_request
from llmchat.server.access_control import OWNER
from llmchat.server.errors import Refusal
from llmchat.server.loaded_model import Lease
from llmchat.server.openai_format import encode_json
from llmchat.server.state import ServerState
from llmchat.server.streaming_response import JSON, AnswerResponse

NDJSON = "application/x-ndjson"
Body = TypeVar("Body", Hello, Count, Encode, Ask, Stream)


class VersionMismatch(Refusal):
    """The client must load the model itself."""

    status = 409


def router(state: ServerState) -> APIRouter:
    routes = APIRouter(include_in_schema=False)

    @routes.post("/private/open")
    async def open_model(request: Request) -> Response:
        return _json(await _open(state, await _decode(request, Hello)))

    @routes.post("/private/count")
    async def count(request: Request) -> Response:
        body = await _decode(request, Count)
        return await _work(
            state, body.key, lambda lease: [lease.engine.count(text) for text in body.texts]
        )

    @routes.post("/private/encode")
    async def encode(request: Request) -> Response:
        body = await _decode(request, Encode)
        return await _work(
            state, body.key, lambda lease: [lease.engine.encode(prompt) for prompt in body.prompts]
        )

    @routes.post("/private/ask")
    async def build_prompt(request: Request) -> Response:
        body = await _decode(request, Ask)
        return await _work(state, body.key, functools.partial(_build_request, body))

    @routes.post("/private/stream")
    async def stream(request: Request) -> Response:
        return AnswerResponse(_lines(state, await _decode(request, Stream)), NDJSON)

    return routes


async def _decode(request: Request, body_type: type[Body]) -> Body:
    """Raises VersionMismatch if the body does not match the type."""
    try:
        return msgspec.json.decode(await request.body(), type=body_type)
    except msgspec.MsgspecError as error:
        raise VersionMismatch(f"the client has another version: {error}") from error


async def _open(state: ServerState, body: Hello) -> Facts:
    """Load the model. Raises VersionMismatch, also if the client finds its models elsewhere."""
    if body.protocol != PROTOCOL or body.places != model_folders(state.catalog.world):
        raise VersionMismatch("the client has another version, or other model folders")
    key, spec = await asyncio.to_thread(state.catalog.spec_of_preset, body.preset, body.options)
    async with state.pool.lease(spec, client=OWNER) as lease:
        engine: BatchEngine = lease.engine
        follows = isinstance(engine, FollowsGrammars) and engine.follows_grammars
        return Facts(key, engine.context, engine.describe(), lease.preset, lease.made_by, follows)


async def _work(state: ServerState, key: str, work: Callable[[Lease], Any]) -> Response:
    """The result of `work` on an opened model, as JSON."""
    async with state.pool.lease(state.catalog.opened(key), client=OWNER) as lease:
        result = await state.prompt_workers.run(OWNER, lease.deadline, lambda: work(lease))
        return _json(result)


def _build_request(body: Ask, lease: Lease) -> Any:
    engine = lease.engine
    return build_request(body.conversation, lease.preset, engine, engine.context, body.sampling)


async def _lines(state: ServerState, body: Stream) -> AsyncGenerator[bytes]:
    async with state.pool.lease(state.catalog.opened(body.key), client=OWNER) as lease:
        prompts = [(body.prompt, body.sampling)]
        async with aclosing(lease.events(prompts, OWNER)) as all_events:
            async for _, events in all_events:
                lines = (
                    Line(chunk=event) if isinstance(event, Chunk) else Line(finish=event)
                    for event in events
                )
                yield b"".join(encode_json(line) + b"\n" for line in lines)


def _json(value: object) -> Response:
    return Response(encode_json(value), media_type=JSON)
