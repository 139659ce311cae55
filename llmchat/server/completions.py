"""POST /v1/completions: raw text, with no format around it."""

import logging
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from llmchat.engines import Chunk, Finish, Sampling, Token
from llmchat.engines.bounded_count import count_within, surely_over
from llmchat.engines.capabilities import TakesTokenIds, unwrap
from llmchat.errors import ContextOverflow, Mismatch
from llmchat.prompt import Prompt
from llmchat.server.api import CompletionRequest
from llmchat.server.errors import BadRequest
from llmchat.server.jobs import Event, merged_events
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
# OpenAI's own, for those who do not say how much they want.
_MAX_TOKENS = 16


class Choice:
    """One answer as it grows. echo: the prompt, where the text begins with it."""

    def __init__(self, index: int, echo: str):
        self.index = index
        self.text = echo
        self.tokens: list[Token] = []
        self.finish: Finish | None = None
        self._untold = echo

    def feed(self, events: list[Event]) -> tuple[str, list[Token]]:
        text, self._untold = self._untold, ""
        tokens: list[Token] = []
        for said in events:
            if isinstance(said, Chunk):
                text += said.text
                self.text += said.text
                tokens += said.tokens
            else:
                self.finish = said
        self.tokens += tokens
        return text, tokens


def complete(state: ServerState, request: CompletionRequest, client: str) -> AnswerResponse:
    check_completion(request)
    if request.stream:
        return AnswerResponse(_streamed(state, request, client), SSE)
    return AnswerResponse(_whole(state, request, client), JSON)


async def _answers(
    state: ServerState, request: CompletionRequest, client: str
) -> AsyncGenerator[tuple[list[Choice], int, str, list[Token]]]:
    given = prompts_of(request)
    async with state.pool.lease(request.model, request.keep_alive, client) as lease:
        if state.log_prompts:
            log.info("prompts of %s: %r", client, given)
        wanted = request.max_tokens if request.max_tokens is not None else _MAX_TOKENS
        sampling = sampling_of(
            request, lease.preset, wanted, 0 if request.logprobs is None else request.logprobs + 1
        )
        prompts = await state.prompt_workers.run(
            client, lease.deadline, lambda: [_prompt(one, lease, sampling) for one in given]
        )
        asked = [
            (prompt, sampling_of_choice(sampling, index))
            for prompt in prompts
            for index in range(request.n or 1)
        ]
        jobs = lease.scheduler.submit(asked, lease.adapters, client, lease.deadline)
        choices = [
            Choice(index, prompt.text if request.echo else "")
            for index, (prompt, _) in enumerate(asked)
        ]
        try:
            async with aclosing(merged_events(jobs)) as coming:
                async for number, events in coming:
                    yield choices, number, *choices[number].feed(events)
        finally:
            lease.scheduler.cancel(jobs)


def _prompt(given: str | list[int], lease: Lease, sampling: Sampling) -> Prompt:
    """Raises ContextOverflow where prompt and answer do not fit the model, BadRequest for token ids that it does not have."""
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
            f"the prompt is {tokens:,} tokens and the answer may be {sampling.max_tokens:,}; the model holds {limit:,}"
        )
    return prompt


def _prompt_of_ids(ids: list[int], lease: Lease) -> Prompt:
    engine = unwrap(lease.engine)
    if not isinstance(engine, TakesTokenIds):
        raise BadRequest(
            "the engine of this model takes text, not token ids",
            param="prompt",
            code="unsupported_parameter",
        )
    try:
        return engine.prompt_of(ids)
    except Mismatch as error:
        raise BadRequest(error.message, param="prompt") from error


async def _whole(
    state: ServerState, request: CompletionRequest, client: str
) -> AsyncGenerator[bytes]:
    async with aclosing(_answers(state, request, client)) as answers:
        async for grown, *_ in answers:
            choices = grown
    shown = [
        _choice(
            choice.index,
            choice.text,
            completion_logprobs(choice.tokens) if request.logprobs is not None else None,
            choice.finish,
        )
        for choice in choices
    ]
    prompts = len(prompts_of(request))
    yield encode_json(
        _frame(state, request)
        | {"choices": shown, "usage": usage([choice.finish for choice in choices], prompts)}
    )


async def _streamed(
    state: ServerState, request: CompletionRequest, client: str
) -> AsyncGenerator[bytes]:
    frame = _frame(state, request)
    counted = bool(request.stream_options and request.stream_options.include_usage)
    frame |= {"usage": None} if counted else {}
    async with aclosing(_answers(state, request, client)) as answers:
        async for choices, number, text, tokens in answers:
            choice = choices[number]
            offset = len(choice.text) - len(text)
            logprobs = (
                completion_logprobs(tokens, offset)
                if request.logprobs is not None and tokens
                else None
            )
            if text or tokens:
                yield sse_event({**frame, "choices": [_choice(number, text, logprobs, None)]})
            if choice.finish:
                yield sse_event({**frame, "choices": [_choice(number, "", None, choice.finish)]})
    if counted:
        prompts = len(prompts_of(request))
        yield sse_event(
            {**frame, "choices": [], "usage": usage([choice.finish for choice in choices], prompts)}
        )
    yield b"data: [DONE]\n\n"


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
