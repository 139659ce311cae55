"""The parts that responses share: tokens used, and log-probabilities in both of OpenAI's forms."""

from collections.abc import Sequence
from typing import Any

import msgspec

from llmchat.engines import Finish, Token

encode_json = msgspec.json.Encoder().encode


def usage(finishes: Sequence[Finish | None], prompts: int = 1) -> dict[str, Any]:
    """Tokens of `prompts` prompts, each counted once, and of all answers to them; finishes: in order, as many to each prompt."""
    ended = [finish for finish in finishes if finish is not None]
    first = ended[:: max(1, len(ended) // prompts)]
    asked, answered = (
        sum(finish.prompt_tokens for finish in first),
        sum(finish.reply_tokens for finish in ended),
    )
    return {
        "prompt_tokens": asked,
        "completion_tokens": answered,
        "total_tokens": asked + answered,
        "prompt_tokens_details": {"cached_tokens": sum(finish.cached_tokens for finish in first)},
    }


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
    """offset: of the first token in the text, in characters."""
    spelled = [token.spelling.decode("utf-8", "replace") for token in tokens]
    offsets = [offset + sum(map(len, spelled[:index])) for index in range(len(spelled))]
    tops = [
        {
            spelling.decode("utf-8", "replace"): _finite(logprob)
            for spelling, logprob in token.rivals
        }
        for token in tokens
    ]
    return {
        "tokens": spelled,
        "token_logprobs": [_finite(token.logprob) for token in tokens],
        "top_logprobs": tops if any(tops) else None,
        "text_offset": offsets,
    }


def _finite(logprob: float) -> float:
    """JSON has no infinity; OpenAI writes -9999 for what is out of the question."""
    return max(logprob, -9999.0)
