"""POST /v1/chat/completions: the same path as a chat in the terminal, for many requests at once."""

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Any

from llmchat.engines import Token
from llmchat.server.answers import Client, answers
from llmchat.server.api import ChatRequest
from llmchat.server.choice import Choice
from llmchat.server.openai_format import chat_logprobs, encode_json, usage
from llmchat.server.request_parsing import check_chat
from llmchat.server.state import ServerState, new_id
from llmchat.server.streaming_response import JSON, SSE, AnswerResponse, sse_event


def chat(state: ServerState, request: ChatRequest, client: Client) -> AnswerResponse:
    check_chat(request)
    if request.stream:
        return AnswerResponse(_streamed(state, request, client), SSE)
    return AnswerResponse(_complete(state, request, client), JSON)


async def _complete(
    state: ServerState, request: ChatRequest, client: Client
) -> AsyncGenerator[bytes]:
    async with aclosing(answers(state, request, client)) as pieces:
        async for all_choices, *_ in pieces:
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
    prompt = choice.generation.prompt.text
    return {
        "window": choice.window(),
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
    async with aclosing(answers(state, request, client)) as pieces:
        async for choices, index, delta, tokens in pieces:
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
