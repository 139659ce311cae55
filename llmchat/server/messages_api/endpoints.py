"""POST /v1/messages and /v1/messages/count_tokens."""

import asyncio
import uuid
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from typing import Any

from llmchat.server.answers import Client, answers, prompt_tokens
from llmchat.server.choice import Choice
from llmchat.server.errors import Unsupported
from llmchat.server.messages_api.errors import error_event
from llmchat.server.messages_api.events import Blocks, content, ending, event, input_usage, usage
from llmchat.server.messages_api.schema import CountRequest, MessagesRequest
from llmchat.server.messages_api.translation import to_chat
from llmchat.server.openai_format import encode_json
from llmchat.server.state import ServerState
from llmchat.server.streaming_response import JSON, SSE, AnswerResponse

# https://platform.claude.com/docs/en/api/versioning. Their answers have the same form.
VERSIONS = ("2023-06-01", "2026-10-21")


def check_version(headers: Mapping[str, str]) -> None:
    """Raises Unsupported for another version of the API. Clients may omit the header."""
    version = headers.get("anthropic-version", VERSIONS[-1])
    if version not in VERSIONS:
        known = " and ".join(f"`{one}`" for one in VERSIONS)
        message = f"anthropic-version `{version[:40]}` is not supported; {known} are"
        raise Unsupported(message, "anthropic-version")


def answer(state: ServerState, request: MessagesRequest, client: Client) -> AnswerResponse:
    if request.stream:
        return AnswerResponse(_streamed(state, request, client), SSE, error_event)
    return AnswerResponse(_complete(state, request, client), JSON)


async def count(state: ServerState, request: CountRequest, client: Client) -> dict[str, int]:
    chat = await asyncio.to_thread(to_chat, request)
    return {"input_tokens": await prompt_tokens(state, chat, client)}


async def _choices(
    state: ServerState, request: MessagesRequest, client: Client
) -> AsyncGenerator[tuple[Choice, dict[str, Any]]]:
    """The growing answer, each time with its `delta`."""
    chat = await asyncio.to_thread(to_chat, request)
    async with aclosing(answers(state, chat, client, fill=True)) as pieces:
        async for (choice,), _, delta, _ in pieces:
            yield choice, delta


async def _complete(
    state: ServerState, request: MessagesRequest, client: Client
) -> AsyncGenerator[bytes]:
    async with aclosing(_choices(state, request, client)) as pieces:
        async for growing, _ in pieces:
            choice = growing
    assert choice.finish is not None
    yield encode_json({
        **_frame(request),
        "content": content(choice, hide_thoughts=_hides_thoughts(request)),
        **ending(choice, request),
        "usage": usage(choice.finish),
    })  # fmt: skip


async def _streamed(
    state: ServerState, request: MessagesRequest, client: Client
) -> AsyncGenerator[bytes]:
    blocks, started = Blocks(hide_thoughts=_hides_thoughts(request)), False
    async with aclosing(_choices(state, request, client)) as pieces:
        async for choice, delta in pieces:
            if not started:
                started = True
                yield event("message_start", message=_empty(choice, request))
            for piece in blocks.feed(delta):
                yield piece
    assert choice.finish is not None
    for piece in blocks.end():
        yield piece
    yield event("message_delta", delta=ending(choice, request), usage=usage(choice.finish))
    yield event("message_stop")


def _frame(request: MessagesRequest) -> dict[str, Any]:
    return {
        "id": f"msg_{uuid.uuid4().hex}",
        "type": "message",
        "role": "assistant",
        "model": request.model,
    }


def _empty(choice: Choice, request: MessagesRequest) -> dict[str, Any]:
    """The message at its start."""
    return {
        **_frame(request),
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "usage": input_usage(choice.generation.window.tokens, choice.cached_tokens),
    }


def _hides_thoughts(request: MessagesRequest) -> bool:
    return request.thinking is not None and request.thinking.display == "omitted"
