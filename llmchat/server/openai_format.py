"""Parts of responses in OpenAI's format: token usage, log-probabilities and tool calls."""

import json
from collections.abc import Sequence
from typing import Any

import msgspec

from llmchat.calls import Call
from llmchat.engines import Finish, Token

encode_json = msgspec.json.Encoder().encode


def usage(finishes: Sequence[Finish | None], prompts: int = 1) -> dict[str, Any]:
    """The tokens of `prompts` prompts, each counted once, and of all answers to them.

    finishes: grouped by prompt, the same number for each
    """
    ended = [finish for finish in finishes if finish is not None]
    first_of_each = ended[:: max(1, len(ended) // prompts)]
    prompt_tokens = sum(finish.prompt_tokens for finish in first_of_each)
    reply_tokens = sum(finish.reply_tokens for finish in ended)
    cached_tokens = sum(finish.cached_tokens for finish in first_of_each)
    return {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": reply_tokens,
        "total_tokens": prompt_tokens + reply_tokens,
        "prompt_tokens_details": {"cached_tokens": cached_tokens},
    }


def tool_call(call: Call, index: int) -> dict[str, Any]:
    """A call in a `delta`."""
    arguments = json.dumps(call.arguments, ensure_ascii=False)
    function = {"name": call.name, "arguments": arguments}
    return {"index": index, "id": call.id, "type": "function", "function": function}


def chat_logprobs(tokens: Sequence[Token]) -> dict[str, Any]:
    return {"content": [_token(token) for token in tokens], "refusal": None}


def _token(token: Token) -> dict[str, Any]:
    rivals = [_scored(spelling, logprob) for spelling, logprob in token.rivals]
    return {**_scored(token.spelling, token.logprob), "top_logprobs": rivals}


def _scored(spelling: bytes, logprob: float) -> dict[str, Any]:
    return {
        "token": spelling.decode("utf-8", "replace"),
        "logprob": _finite(logprob),
        "bytes": list(spelling),
    }


def completion_logprobs(tokens: Sequence[Token], offset: int = 0) -> dict[str, Any]:
    """offset: the position of the first token in the text, in characters."""
    spelled = [token.spelling.decode("utf-8", "replace") for token in tokens]
    offsets = [offset + sum(map(len, spelled[:index])) for index in range(len(spelled))]
    top_logprobs = [_top_logprobs(token) for token in tokens]
    return {
        "tokens": spelled,
        "token_logprobs": [_finite(token.logprob) for token in tokens],
        "top_logprobs": top_logprobs if any(top_logprobs) else None,
        "text_offset": offsets,
    }


def _top_logprobs(token: Token) -> dict[str, float]:
    return {
        spelling.decode("utf-8", "replace"): _finite(logprob) for spelling, logprob in token.rivals
    }


def _finite(logprob: float) -> float:
    """JSON has no infinity; OpenAI uses -9999 for tokens with probability 0."""
    return max(logprob, -9999.0)
