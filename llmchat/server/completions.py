"""POST /v1/completions: continues raw text or token ids, without a prompt format."""

import asyncio
import logging
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Any

from llmchat.engines import Chunk, Finish, Sampling, Token
from llmchat.engines.bounded_count import count_within, surely_over
from llmchat.engines.capabilities import TakesTokenIds, unwrap
from llmchat.errors import ContextOverflow, Mismatch
from llmchat.prompt import Prompt
from llmchat.server.answer_forms import AnswerForm, bound, form_of
from llmchat.server.api import CompletionRequest
from llmchat.server.errors import BadRequest, Unsupported
from llmchat.server.jobs import Event
from llmchat.server.loaded_model import Lease
from llmchat.server.openai_format import completion_logprobs, encode_json, usage
from llmchat.server.request_parsing import (
    check_completion,
    prompts_of,
    sampling_of,
    sampling_of_choice,
)
from llmchat.server.state import ServerState, new_id
from llmchat.server.streaming_response import JSON, SSE, AnswerResponse, sse_event

log = logging.getLogger("llmchat.server")
# OpenAI's default for this endpoint.
_DEFAULT_MAX_TOKENS = 16


class Choice:
    """One answer while it is generated. echo: the prompt, if the text starts with it."""

    def __init__(self, index: int, echo: str):
        self.index = index
        self.text = echo
        self.tokens: list[Token] = []
        self.finish: Finish | None = None
        self._unsent = echo

    def feed(self, events: Sequence[Event]) -> tuple[str, list[Token]]:
        """Add events; returns the new text and tokens."""
        text, self._unsent = self._unsent, ""
        tokens: list[Token] = []
        for event in events:
            if isinstance(event, Chunk):
                text += event.text
                self.text += event.text
                tokens += event.tokens
            else:
                self.finish = event
        self.tokens += tokens
        return text, tokens


def complete(state: ServerState, request: CompletionRequest, client: str) -> AnswerResponse:
    check_completion(request)
    if request.model in state.roles:
        message = "roles are for chats: /v1/completions adds no prompt to raw text"
        raise BadRequest(message, param="model")
    if request.stream:
        return AnswerResponse(_streamed(state, request, client), SSE)
    return AnswerResponse(_complete(state, request, client), JSON)


async def _answers(
    state: ServerState, request: CompletionRequest, client: str
) -> AsyncGenerator[tuple[list[Choice], int, str, list[Token]]]:
    """For each piece: all choices, the index of the one that grew, its new text and tokens."""
    given = prompts_of(request)
    form = await asyncio.to_thread(form_of, request)
    async with state.pool.lease(request.model, request.keep_alive, client) as lease:
        if state.log_prompts:
            log.info("prompts of %s: %r", client, given)
        sampling = _sampling(request, lease, form)
        prompts = await state.prompt_workers.run(
            client, lease.deadline, lambda: [_prompt(one, lease, sampling) for one in given]
        )
        asked = [
            (prompt, sampling_of_choice(sampling, index))
            for prompt in prompts
            for index in range(request.n or 1)
        ]
        choices = [
            Choice(index, prompt.text if request.echo else "")
            for index, (prompt, _) in enumerate(asked)
        ]
        async with aclosing(lease.events(asked, client)) as all_events:
            async for index, events in all_events:
                yield choices, index, *choices[index].feed(events)


def _sampling(request: CompletionRequest, lease: Lease, form: AnswerForm) -> Sampling:
    max_tokens = _DEFAULT_MAX_TOKENS if request.max_tokens is None else request.max_tokens
    logprobs = 0 if request.logprobs is None else request.logprobs + 1
    sampling = sampling_of(request, lease.preset, max_tokens, logprobs)
    return bound(sampling, form, lease.engine)


def _prompt(given: str | list[int], lease: Lease, sampling: Sampling) -> Prompt:
    """Raises ContextOverflow if prompt and answer exceed the context window, and BadRequest for
    token ids that the model does not have."""
    limit = min(lease.preset.context.tokens or lease.engine.context, lease.engine.context)
    if isinstance(given, str):
        prompt = Prompt(given, ())
        tokens = count_within(lease.engine, given, limit)
        if not surely_over(tokens, limit):
            tokens = len(lease.engine.encode(prompt))
    else:
        tokens = len(given)
        prompt = Prompt("", ()) if surely_over(tokens, limit) else _prompt_of_ids(given, lease)
    if tokens + sampling.max_tokens > limit:
        raise ContextOverflow(
            f"the prompt ({tokens:,} tokens) and the answer (up to {sampling.max_tokens:,}) "
            f"exceed the context window of {limit:,}"
        )
    return prompt


def _prompt_of_ids(ids: list[int], lease: Lease) -> Prompt:
    engine = unwrap(lease.engine)
    if not isinstance(engine, TakesTokenIds):
        raise Unsupported("this model's engine does not support prompts as token ids", "prompt")
    try:
        return engine.prompt_of(ids)
    except Mismatch as error:
        raise BadRequest(error.message, param="prompt") from error


async def _complete(
    state: ServerState, request: CompletionRequest, client: str
) -> AsyncGenerator[bytes]:
    async with aclosing(_answers(state, request, client)) as answers:
        async for all_choices, *_ in answers:
            choices = all_choices
    rows = [
        _choice(choice.index, choice.text, _logprobs(request, choice.tokens), choice.finish)
        for choice in choices
    ]
    yield encode_json(_frame(state, request) | {"choices": rows, "usage": _usage(request, choices)})


async def _streamed(
    state: ServerState, request: CompletionRequest, client: str
) -> AsyncGenerator[bytes]:
    frame = _frame(state, request)
    with_usage = bool(request.stream_options and request.stream_options.include_usage)
    frame |= {"usage": None} if with_usage else {}
    async with aclosing(_answers(state, request, client)) as answers:
        async for choices, index, text, tokens in answers:
            choice = choices[index]
            if text or tokens:
                offset = len(choice.text) - len(text)
                logprobs = _logprobs(request, tokens, offset) if tokens else None
                yield sse_event({**frame, "choices": [_choice(index, text, logprobs, None)]})
            if choice.finish:
                yield sse_event({**frame, "choices": [_choice(index, "", None, choice.finish)]})
    if with_usage:
        yield sse_event({**frame, "choices": [], "usage": _usage(request, choices)})
    yield b"data: [DONE]\n\n"


def _usage(request: CompletionRequest, choices: Sequence[Choice]) -> dict[str, Any]:
    return usage([choice.finish for choice in choices], len(prompts_of(request)))


def _logprobs(
    request: CompletionRequest, tokens: Sequence[Token], offset: int = 0
) -> dict[str, Any] | None:
    return None if request.logprobs is None else completion_logprobs(tokens, offset)


def _frame(state: ServerState, request: CompletionRequest) -> dict[str, Any]:
    return {
        "id": new_id("cmpl"),
        "object": "text_completion",
        "created": int(state.now()),
        "model": request.model,
    }


def _choice(
    index: int, text: str, logprobs: dict[str, Any] | None, finish: Finish | None
) -> dict[str, Any]:
    return {
        "index": index,
        "text": text,
        "logprobs": logprobs,
        "finish_reason": finish.reason if finish else None,
    }
