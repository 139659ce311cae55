"""The answers to a chat request, whatever protocol it came in.

A protocol translates its request to a ChatRequest, and the growing choices to its own events.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from llmchat.engines import Token
from llmchat.errors import ContextOverflow
from llmchat.reply import build_request
from llmchat.reply_parser import GenerationRequest, ReplyParser
from llmchat.server.answer_forms import AnswerForm, bound, form_of
from llmchat.server.api import ChatRequest
from llmchat.server.choice import Choice
from llmchat.server.documents import UnknownDocs
from llmchat.server.loaded_model import Lease
from llmchat.server.request_documents import Asked, Placing, wants_documents
from llmchat.server.request_messages import to_conversation
from llmchat.server.request_parsing import (
    chat_settings,
    most_tokens,
    sampling_of_choice,
    with_policy,
)
from llmchat.server.roles import NO_ROLE, ServedRole
from llmchat.server.state import ServerState

log = logging.getLogger("llmchat.server")
# No window is as large: for counting what may not fit.
_UNLIMITED = 2**31


class Client(Struct, frozen=True):
    """Who asks. name: for queues. owner: the user whose documents a request may use; raises
    Forbidden, and reads files.
    """

    name: str
    owner: Callable[[], str]


async def answers(
    state: ServerState, request: ChatRequest, client: Client, *, fill: bool = False
) -> AsyncGenerator[tuple[list[Choice], int, dict[str, Any], list[Token]]]:
    """For each piece: all choices, the index of the one that grew, its delta, its new tokens.

    fill: an answer may also end where the window does; otherwise a request is refused if an answer
    of its `max_tokens` might not fit.
    """
    role = state.roles.get(request.model, NO_ROLE)
    request = role.fill(request)
    # A large schema takes time to check, which the event loop must not spend.
    form = role.form(request, await asyncio.to_thread(form_of, request))
    async with state.pool.lease(request.model, request.keep_alive, client.name) as lease:
        asked = await _asked(state, request, lease, client)
        generation = await state.prompt_workers.run(
            client.name,
            lease.deadline,
            lambda: _build_request(state, request, role, lease, form, asked, fill=fill),
        )
        if state.log_prompts:
            log.info("prompt of %s: %r", client.name, generation.prompt.text)
        asks = [
            (generation.prompt, sampling_of_choice(generation.sampling, index))
            for index in range(request.n or 1)
        ]
        choices = [
            Choice(
                index,
                generation,
                ReplyParser(lease.preset, generation),
                lease.engine.count,
                asked,
            )
            for index in range(len(asks))
        ]
        async with aclosing(lease.events(asks, client.name)) as all_events:
            async for index, events in all_events:
                yield choices, index, *choices[index].feed(events)


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
        user, whole = client.owner(), not trims(state, request)
        return Placing(request, documents, user, lease.engine, limit, whole=whole).asked()

    return await documents.workers.run(client.name, lease.deadline, place)


def trims(state: ServerState, request: ChatRequest) -> bool:
    """Whether messages that do not fit the window are dropped."""
    return request.truncation == "auto" or (request.truncation is None and state.trim)


def _build_request(
    state: ServerState,
    request: ChatRequest,
    role: ServedRole,
    lease: Lease,
    form: AnswerForm,
    asked: Asked | None,
    *,
    fill: bool,
) -> GenerationRequest:
    """Choose the messages that fit and render the prompt. Slow, because it counts tokens: call it
    in a thread."""
    trim = trims(state, request)
    preset, sampling = chat_settings(request, with_policy(lease.preset, trim))
    sampling = bound(sampling, form, lease.engine)
    max_tokens = most_tokens(request)
    generation = build_request(
        role.conversation(asked.conversation if asked else to_conversation(request.messages)),
        preset,
        lease.engine,
        lease.engine.context,
        replace(sampling, max_tokens=0) if fill else sampling,
        reserve=trim or not (fill or max_tokens is None),
        tools=form.tools,
    )
    if fill:
        return _limited(generation, sampling.max_tokens)
    window = generation.window
    if max_tokens and not trim and window.tokens + max_tokens > window.limit:
        raise ContextOverflow(
            f"the messages ({window.tokens:,} tokens) and the answer (up to {max_tokens:,}) "
            f"exceed the context window of {window.limit:,}"
        )
    return generation


def _limited(generation: GenerationRequest, max_tokens: int) -> GenerationRequest:
    """The request with an answer of at most so many tokens; 0 is no limit."""
    room = generation.sampling.max_tokens
    sampling = replace(generation.sampling, max_tokens=min(max_tokens or room, room))
    return replace(generation, sampling=sampling)


async def prompt_tokens(state: ServerState, request: ChatRequest, client: Client) -> int:
    """Tokens of the prompt, also of one that no window of the model holds."""
    role = state.roles.get(request.model, NO_ROLE)
    form = role.form(request, await asyncio.to_thread(form_of, request))
    async with state.pool.lease(request.model, request.keep_alive, client.name) as lease:
        return await state.prompt_workers.run(
            client.name, lease.deadline, lambda: _count(request, role, lease, form)
        )


def _count(request: ChatRequest, role: ServedRole, lease: Lease, form: AnswerForm) -> int:
    preset, sampling = chat_settings(request, with_policy(lease.preset, trim=False))
    preset = replace(preset, context=replace(preset.context, tokens=0))
    generation = build_request(
        role.conversation(to_conversation(request.messages)),
        preset,
        lease.engine,
        _UNLIMITED,
        bound(sampling, form, lease.engine),
        reserve=False,
        tools=form.tools,
    )
    return generation.window.tokens
