"""POST /v1/chat/completions: the same path as a chat in the terminal, for many requests at once."""

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from typing import Any

from msgspec import Struct

from llmchat.engines import Token
from llmchat.errors import ContextOverflow
from llmchat.reply import build_request
from llmchat.reply_parser import GenerationRequest, ReplyParser
from llmchat.server.answer_forms import AnswerForm, bound, form_of
from llmchat.server.api import ChatRequest
from llmchat.server.choice import Choice
from llmchat.server.documents import UnknownDocs
from llmchat.server.jobs import merged_events
from llmchat.server.loaded_model import Lease
from llmchat.server.openai_format import chat_logprobs, encode_json, usage
from llmchat.server.request_documents import Asked, Placing, wants_documents
from llmchat.server.request_messages import to_conversation
from llmchat.server.request_parsing import (
    chat_settings,
    check_chat,
    most_tokens,
    sampling_of_choice,
    with_policy,
)
from llmchat.server.state import ServerState, new_id
from llmchat.server.streaming_response import JSON, SSE, AnswerResponse, sse_event

log = logging.getLogger("llmchat.server")


class Client(Struct, frozen=True):
    """Who asks. name: for queues. owner: the user whose documents a request may use; raises
    Forbidden, and reads files.
    """

    name: str
    owner: Callable[[], str]


def chat(state: ServerState, request: ChatRequest, client: Client) -> AnswerResponse:
    check_chat(request)
    if request.stream:
        return AnswerResponse(_streamed(state, request, client), SSE)
    return AnswerResponse(_complete(state, request, client), JSON)


async def _answers(
    state: ServerState, request: ChatRequest, client: Client
) -> AsyncGenerator[tuple[list[Choice], int, dict[str, Any], list[Token]]]:
    """For each piece: all choices, the index of the one that grew, its delta, its new tokens."""
    # A large schema takes time to check, which the event loop must not spend.
    form = await asyncio.to_thread(form_of, request)
    async with state.pool.lease(request.model, request.keep_alive, client.name) as lease:
        asked = await _asked(state, request, lease, client)
        generation = await state.prompt_workers.run(
            client.name, lease.deadline, lambda: _build_request(state, request, lease, form, asked)
        )
        if state.log_prompts:
            log.info("prompt of %s: %r", client.name, generation.prompt.text)
        samplings = [
            sampling_of_choice(generation.sampling, index) for index in range(request.n or 1)
        ]
        jobs = lease.scheduler.submit(
            [(generation.prompt, sampling) for sampling in samplings],
            lease.adapters,
            client.name,
            lease.deadline,
        )
        choices = [
            Choice(index, generation, ReplyParser(lease.preset, generation), asked)
            for index in range(len(jobs))
        ]
        try:
            async with aclosing(merged_events(jobs)) as all_events:
                async for index, events in all_events:
                    yield choices, index, *choices[index].feed(events)
        finally:
            lease.scheduler.cancel(jobs)


async def _asked(
    state: ServerState, request: ChatRequest, lease: Lease, client: Client
) -> Asked | None:
    """The conversation with its documents; None for a request without any."""
    if not wants_documents(request):
        return None
    if state.documents is None:
        raise UnknownDocs(next(iter(request.docs or ["files"])), ())
    documents, limit = state.documents, lease.engine.context
    limit = min(lease.preset.context.tokens or limit, limit)

    def place() -> Asked:
        user, whole = client.owner(), not _trims(state, request)
        return Placing(request, documents, user, lease.engine, limit, whole=whole).asked()

    return await documents.workers.run(client.name, lease.deadline, place)


def _trims(state: ServerState, request: ChatRequest) -> bool:
    return request.truncation == "auto" or (request.truncation is None and state.trim)


def _build_request(
    state: ServerState,
    request: ChatRequest,
    lease: Lease,
    form: AnswerForm,
    asked: Asked | None,
) -> GenerationRequest:
    """Choose the messages that fit and render the prompt. Slow, because it counts tokens: call it
    in a thread."""
    trim = _trims(state, request)
    preset, sampling = chat_settings(request, with_policy(lease.preset, trim))
    sampling = bound(sampling, form, lease.engine)
    max_tokens = most_tokens(request)
    generation = build_request(
        asked.conversation if asked else to_conversation(request.messages),
        preset,
        lease.engine,
        lease.engine.context,
        sampling,
        reserve=trim or max_tokens is not None,
        tools=form.tools,
    )
    window = generation.window
    if max_tokens and not trim and window.tokens + max_tokens > window.limit:
        raise ContextOverflow(
            f"the messages ({window.tokens:,} tokens) and the answer (up to {max_tokens:,}) "
            f"exceed the context window of {window.limit:,}"
        )
    return generation


async def _complete(
    state: ServerState, request: ChatRequest, client: Client
) -> AsyncGenerator[bytes]:
    async with aclosing(_answers(state, request, client)) as answers:
        async for all_choices, *_ in answers:
            choices = all_choices
    yield encode_json({
        **_frame("chat.completion", state, request),
        "choices": [
            {
                "index": choice.index,
                "message": choice.message(),
                "logprobs": chat_logprobs(choice.tokens) if request.logprobs else None,
                "finish_reason": choice.finish_reason,
            }
            for choice in choices
        ],
        "usage": usage([choice.finish for choice in choices]),
        "llmchat": _details(choices[0], request),
    })  # fmt: skip


def _frame(kind: str, state: ServerState, request: ChatRequest) -> dict[str, Any]:
    created = int(state.now())
    return {"id": new_id("chatcmpl"), "object": kind, "created": created, "model": request.model}


def _details(choice: Choice, request: ChatRequest) -> dict[str, Any]:
    """Beyond OpenAI's API: how many messages were dropped, which files were too large for the
    window and searched, and with `show_prompt` the prompt."""
    window, prompt = choice.generation.window, choice.generation.prompt.text
    fields = {
        "limit": window.limit,
        "tokens": window.tokens,
        "sent": window.sent,
        "dropped": window.dropped,
    }
    return {
        "window": fields,
        **({"searched": choice.searched} if choice.searched else {}),
        **({"prompt": prompt} if request.show_prompt else {}),
    }


async def _streamed(
    state: ServerState, request: ChatRequest, client: Client
) -> AsyncGenerator[bytes]:
    frame = _frame("chat.completion.chunk", state, request)
    with_usage = bool(request.stream_options and request.stream_options.include_usage)
    frame |= {"usage": None} if with_usage else {}

    def chunk(
        index: int, delta: dict[str, Any], tokens: Sequence[Token] = (), reason: str | None = None
    ) -> bytes:
        logprobs = chat_logprobs(tokens) if request.logprobs and tokens else None
        choice = {"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": reason}
        return sse_event({**frame, "choices": [choice]})

    started: set[int] = set()
    async with aclosing(_answers(state, request, client)) as answers:
        async for choices, index, delta, tokens in answers:
            if index not in started:
                started.add(index)
                yield chunk(index, {"role": "assistant", "content": ""})
            if delta or tokens:
                yield chunk(index, delta, tokens)
            if choices[index].finish:
                choice = choices[index]
                yield chunk(index, choice.cited(), reason=choice.finish_reason)
    if with_usage:
        totals = usage([choice.finish for choice in choices])
        details = _details(choices[0], request)
        yield sse_event({**frame, "choices": [], "usage": totals, "llmchat": details})
    yield b"data: [DONE]\n\n"
