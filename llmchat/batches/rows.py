"""The lines that a batch writes: an answer or an error for each line of the input.

docs/batch.md describes the fields.
"""

import json
from collections.abc import Sequence
from typing import Any

from msgspec import UNSET, Struct, UnsetType

from llmchat.batches.reading import Line
from llmchat.engines import Finish
from llmchat.errors import LlmchatError
from llmchat.reply_parser import GenerationRequest
from llmchat.server.choice import Choice
from llmchat.server.openai_format import chat_logprobs, usage
from llmchat.structure import Structure


class Tokens(Struct):
    """The tokens of a line."""

    prompt_tokens: int
    """Tokens of the prompt."""
    cached_tokens: int
    """Those of them that were in the KV cache."""
    completion_tokens: int
    """Tokens of all answers."""


class Sent(Struct):
    """What was sent of the messages."""

    limit: int
    """Tokens of the context window."""
    tokens: int
    """Tokens of the rendered prompt."""
    sent: int
    """Messages that were sent."""
    dropped: int
    """Messages that did not fit."""


class Fault(Struct, omit_defaults=True):
    """Why a line has no answer."""

    message: str
    """What happened."""
    hint: str = ""
    """The way out."""


class OneOfSeveral(Struct):
    """One of several answers to a line."""

    text: str
    """The answer."""
    finish_reason: str
    """`stop` or `length` (the token limit)."""
    seed: int | None
    """The seed that reproduces the answer."""


class BatchRow(Struct, kw_only=True):
    """A line of `llmchat batch`."""

    line: int
    """Number of the line that it answers."""
    custom_id: str | UnsetType = UNSET
    """The line's own custom_id."""
    text: str | UnsetType = UNSET
    """The answer."""
    value: Any = UNSET
    """The answer, parsed: with a schema, if it is complete."""
    thinking: str | UnsetType = UNSET
    """The model's reasoning before the answer; absent without it."""
    tool_calls: list[dict[str, Any]] | UnsetType = UNSET
    """Calls of tools, in OpenAI's form."""
    finish_reason: str | UnsetType = UNSET
    """`stop` or `length` (the token limit)."""
    usage: Tokens | UnsetType = UNSET
    """Tokens."""
    window: Sent | UnsetType = UNSET
    """What the model was given."""
    seed: int | UnsetType | None = UNSET
    """The seed that reproduces the answer."""
    answers: list[OneOfSeveral] | UnsetType = UNSET
    """With --n: all answers, the first one included."""
    error: Fault | UnsetType = UNSET
    """Why there is no answer."""
    key: str
    """Identifies the line when the batch is continued."""
    run: str
    """Hash of the model and the settings."""


class BatchMark(Struct):
    """What a line in OpenAI's form has besides: as in BatchRow."""

    line: int
    """Number of the line that it answers."""
    key: str
    """Identifies the line when the batch is continued."""
    run: str
    """Hash of the model and the settings."""


Row = BatchRow | dict[str, Any]
# How the rows of both forms begin.
OPENINGS = (b'{"line":', b'{"id":"batch_req_')


def failed(line: Line, error: LlmchatError, run: str) -> Row:
    """The row of a line that has no answer."""
    if line.ask and line.ask.request:
        told = {"code": type(error).__name__, "message": error.message}
        return _in_openai_form(line, run, response=None, error=told)
    return BatchRow(
        line=line.number, custom_id=line.id or UNSET, error=Fault(error.message, error.hint or ""),
        key=line.key, run=run,
    )  # fmt: skip


def answered(line: Line, choices: Sequence[Choice], model: str, created: int, run: str) -> Row:
    """The row of a line whose answers are complete."""
    if line.ask and line.ask.request:
        body = _completion(line, choices, model, created)
        response = {"status_code": 200, "request_id": f"req_{line.key}", "body": body}
        return _in_openai_form(line, run, response=response, error=None)
    return _own(line, choices, run)


def _own(line: Line, choices: Sequence[Choice], run: str) -> BatchRow:
    first = choices[0]
    several = [
        OneOfSeveral(one.text, one.finish_reason, one.generation.sampling.seed) for one in choices
    ]
    finishes = [one.finish for one in choices if one.finish]
    return BatchRow(
        line=line.number,
        custom_id=line.id or UNSET,
        text=first.text,
        value=_value(first.generation.sampling.structure, first.text, first.finish),
        thinking=first.thinking or UNSET,
        tool_calls=first.message().get("tool_calls", UNSET),
        finish_reason=first.finish_reason,
        usage=Tokens(
            finishes[0].prompt_tokens, finishes[0].cached_tokens,
            sum(finish.reply_tokens for finish in finishes),
        ),
        window=_sent(first.generation),
        seed=first.generation.sampling.seed,
        answers=several if len(several) > 1 else UNSET,
        key=line.key,
        run=run,
    )  # fmt: skip


def _sent(generation: GenerationRequest) -> Sent:
    window = generation.window
    return Sent(window.limit, window.tokens, window.sent, window.dropped)


def _value(structure: Structure | None, text: str, finish: Finish | None) -> Any:
    from llmchat.engines.guide.conformance import conforms

    if structure is None or not structure.is_json or finish is None or finish.reason == "length":
        return UNSET
    return json.loads(text) if conforms(structure, text) else UNSET


def _completion(line: Line, choices: Sequence[Choice], model: str, created: int) -> dict[str, Any]:
    assert line.ask and line.ask.request
    window = _sent(choices[0].generation)
    return {
        "id": f"chatcmpl-{line.key}",
        "object": "chat.completion",
        "created": created,
        "model": model,
        "choices": [
            {
                "index": one.index,
                "message": one.message(),
                "logprobs": chat_logprobs(one.tokens) if line.ask.request.logprobs else None,
                "finish_reason": one.finish_reason,
            }
            for one in choices
        ],
        "usage": usage([one.finish for one in choices]),
        "llmchat": {"window": window},
    }


def _in_openai_form(line: Line, run: str, **more: Any) -> dict[str, Any]:
    marked = BatchMark(line.number, line.key, run)
    return {"id": f"batch_req_{line.key}", "custom_id": line.id, **more, "llmchat": marked}
