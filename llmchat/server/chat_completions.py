"""POST /v1/chat/completions: the same way as in the terminal, for many at once."""

import logging
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Any

from llmchat.chat import build_request
from llmchat.engines import Chunk, Finish, Token
from llmchat.errors import ContextOverflow
from llmchat.reply_parser import GenerationRequest, ReplyParser, Thinking
from llmchat.server.api import ChatRequest
from llmchat.server.jobs import Event, merged_events
from llmchat.server.loaded_model import Lease
from llmchat.server.openai_format import chat_logprobs, encode_json, usage
from llmchat.server.request_parsing import (
    check_chat,
    sampling_of,
    sampling_of_choice,
    to_conversation,
    with_policy,
    with_template_values,
    with_tools,
)
from llmchat.server.state import ServerState, new_id
from llmchat.server.streaming_response import JSON, SSE, AnswerResponse, sse_event
from llmchat.server.tool_calls import ToolCallParser

log = logging.getLogger("llmchat.server")


class Choice:
    """One answer of a request as it grows. `feed` returns the delta of what came, or nothing."""

    def __init__(
        self,
        index: int,
        generation: GenerationRequest,
        parser: ReplyParser,
        tools: ToolCallParser | None,
    ):
        self.index = index
        self.generation = generation
        self.text = self.thinking = ""
        self.calls: list[dict[str, Any]] = []
        self.tokens: list[Token] = []
        self.finish: Finish | None = None
        self._parser = parser
        self._tools = tools

    def feed(self, events: Sequence[Event]) -> tuple[dict[str, Any], list[Token]]:
        text = thinking = ""
        tokens: list[Token] = []
        calls: list[dict[str, Any]] = []
        for said in events:
            tokens += said.tokens if isinstance(said, Chunk) else ()
            for read in self._parser.feed(said):
                if isinstance(read, Thinking):
                    thinking += read.text
                elif isinstance(read, Chunk):
                    shown, called = self._tools.feed(read.text) if self._tools else (read.text, [])
                    text, calls = text + shown, calls + called
                elif isinstance(read, Finish):
                    self.finish = read
        if self.finish and self._tools:
            shown, called = self._tools.flush()
            text, calls = text + shown, calls + called
        self.text, self.thinking = self.text + text, self.thinking + thinking
        self.calls += calls
        self.tokens += tokens
        delta = {"reasoning_content": thinking, "content": text, "tool_calls": calls}
        return {name: value for name, value in delta.items() if value}, tokens

    @property
    def reason(self) -> str:
        assert self.finish is not None
        return "tool_calls" if self.calls and self.finish.reason == "stop" else self.finish.reason

    def message(self) -> dict[str, Any]:
        calls = [
            {name: value for name, value in call.items() if name != "index"} for call in self.calls
        ]
        return {
            "role": "assistant",
            "content": self.text if self.text or not calls else None,
            "refusal": None,
            **({"reasoning_content": self.thinking} if self.thinking else {}),
            **({"tool_calls": calls} if calls else {}),
        }


def chat(state: ServerState, request: ChatRequest, client: str) -> AnswerResponse:
    check_chat(request)
    if request.stream:
        return AnswerResponse(_streamed(state, request, client), SSE)
    return AnswerResponse(_whole(state, request, client), JSON)


async def _answers(
    state: ServerState, request: ChatRequest, client: str
) -> AsyncGenerator[tuple[list[Choice], int, dict[str, Any], list[Token]]]:
    """All choices, the number of the one that has grown, its delta and its new tokens, whenever something came."""
    async with state.pool.lease(request.model, request.keep_alive, client) as lease:
        generation = await state.prompt_workers.run(
            client, lease.deadline, lambda: _build_request(state, request, lease)
        )
        if state.log_prompts:
            log.info("prompt of %s: %r", client, generation.prompt.text)
        samplings = [
            sampling_of_choice(generation.sampling, index) for index in range(request.n or 1)
        ]
        jobs = lease.scheduler.submit(
            [(generation.prompt, sampling) for sampling in samplings],
            lease.adapters,
            client,
            lease.deadline,
        )
        choices = [
            Choice(
                index,
                generation,
                ReplyParser(lease.preset, generation),
                _tool_call_parser(request, lease),
            )
            for index in range(len(jobs))
        ]
        try:
            async with aclosing(merged_events(jobs)) as coming:
                async for number, events in coming:
                    yield choices, number, *choices[number].feed(events)
        finally:
            lease.scheduler.cancel(jobs)


def _build_request(state: ServerState, request: ChatRequest, lease: Lease) -> GenerationRequest:
    """Window and prompt; in a thread of its own, since it counts tokens."""
    trim = request.truncation == "auto" or (request.truncation is None and state.trim)
    preset = with_template_values(
        lease.preset, request.chat_template_kwargs, request.reasoning_effort
    )
    preset = with_tools(with_policy(preset, trim), request.tools, request.tool_choice)
    wanted = (
        request.max_completion_tokens
        if request.max_completion_tokens is not None
        else request.max_tokens
    )
    sampling = sampling_of(
        request, preset, wanted, (request.top_logprobs or 0) + 1 if request.logprobs else 0
    )
    conversation = to_conversation(request.messages)
    generation = build_request(
        conversation,
        preset,
        lease.engine,
        lease.engine.context,
        sampling,
        reserve=trim or wanted is not None,
    )
    if wanted and not trim and generation.window.tokens + wanted > generation.window.limit:
        raise ContextOverflow(
            f"the messages are {generation.window.tokens:,} tokens and the answer may be {wanted:,}; the model holds {generation.window.limit:,}"
        )
    return generation


def _tool_call_parser(request: ChatRequest, lease: Lease) -> ToolCallParser | None:
    if not request.tools or request.tool_choice == "none":
        return None
    return ToolCallParser(
        lease.preset.format.template or "", {tool.function.name for tool in request.tools}
    )


async def _whole(state: ServerState, request: ChatRequest, client: str) -> AsyncGenerator[bytes]:
    async with aclosing(_answers(state, request, client)) as answers:
        async for grown, *_ in answers:
            choices = grown
    yield encode_json({
        "id": new_id("chatcmpl"),
        "object": "chat.completion",
        "created": int(state.now()),
        "model": request.model,
        "choices": [
            {
                "index": choice.index,
                "message": choice.message(),
                "logprobs": chat_logprobs(choice.tokens) if request.logprobs else None,
                "finish_reason": choice.reason,
            }
            for choice in choices
        ],
        "usage": usage([choice.finish for choice in choices]),
        "llmchat": _shown(choices[0].generation, request),
    })  # fmt: skip


def _shown(generation: GenerationRequest, request: ChatRequest) -> dict[str, Any]:
    """Beyond OpenAI's API: what was left out, so that nothing is cut silently, and for `show_prompt` the text the model was given."""
    window = generation.window
    fate = {
        "limit": window.limit,
        "tokens": window.tokens,
        "sent": window.sent,
        "dropped": window.dropped,
    }
    return {"window": fate, **({"prompt": generation.prompt.text} if request.show_prompt else {})}


async def _streamed(state: ServerState, request: ChatRequest, client: str) -> AsyncGenerator[bytes]:
    frame = {
        "id": new_id("chatcmpl"),
        "object": "chat.completion.chunk",
        "created": int(state.now()),
        "model": request.model,
    }
    counted = bool(request.stream_options and request.stream_options.include_usage)
    frame |= {"usage": None} if counted else {}

    def chunk(
        index: int, delta: dict[str, Any], tokens: Sequence[Token] = (), reason: str | None = None
    ) -> bytes:
        logprobs = chat_logprobs(tokens) if request.logprobs and tokens else None
        return sse_event(
            {
                **frame,
                "choices": [
                    {"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": reason}
                ],
            }
        )

    begun: set[int] = set()
    async with aclosing(_answers(state, request, client)) as answers:
        async for choices, number, delta, tokens in answers:
            if number not in begun:
                begun.add(number)
                yield chunk(number, {"role": "assistant", "content": ""})
            if delta or tokens:
                yield chunk(number, delta, tokens)
            if choices[number].finish:
                yield chunk(number, {}, reason=choices[number].reason)
    if counted:
        shown = _shown(choices[0].generation, request)
        yield sse_event(
            {
                **frame,
                "choices": [],
                "usage": usage([choice.finish for choice in choices]),
                "llmchat": shown,
            }
        )
    yield b"data: [DONE]\n\n"
