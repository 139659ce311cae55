"""The response object, from its creation to its end."""

from typing import Any

from llmchat.engines import Finish, Sampling
from llmchat.server.choice import Choice
from llmchat.server.responses_api.schema import ResponseRequest

Body = dict[str, Any]


def begun(
    request: ResponseRequest,
    sampling: Sampling,
    id: str,
    created: int,
    *,
    stored: bool,
    trims: bool,
) -> Body:
    """A response in progress. sampling: with the model's defaults. trims: whether messages that do
    not fit the window are dropped."""
    asked = request.model_dump(by_alias=True, exclude_none=True)
    return {
        "id": id,
        "object": "response",
        "created_at": created,
        "status": "in_progress",
        "background": False,
        "completed_at": None,
        "error": None,
        "incomplete_details": None,
        "instructions": request.instructions,
        "max_output_tokens": request.max_output_tokens,
        "metadata": request.metadata or {},
        "model": request.model,
        "output": [],
        "parallel_tool_calls": request.parallel_tool_calls is not False,
        "previous_response_id": request.previous_response_id,
        "reasoning": {"effort": None, "summary": None} | asked.get("reasoning", {}),
        "store": stored,
        "temperature": sampling.temperature,
        "text": {"format": {"type": "text"}} | asked.get("text", {}),
        "tool_choice": asked.get("tool_choice", "auto"),
        "tools": asked.get("tools", []),
        "top_logprobs": request.top_logprobs or 0,
        "top_p": sampling.top_p,
        "truncation": "auto" if trims else "disabled",
        "usage": None,
        "user": asked.get("user"),
    }


def ended(body: Body, output: list[dict[str, Any]], choice: Choice, now: int) -> Body:
    """The response when its answer is complete, or was cut off by the limit of tokens."""
    assert choice.finish is not None
    cut = choice.finish.reason == "length"
    return {
        **body,
        "status": "incomplete" if cut else "completed",
        "completed_at": None if cut else now,
        "incomplete_details": {"reason": "max_output_tokens"} if cut else None,
        "output": output,
        "usage": _usage(choice.finish, choice.thinking_tokens),
        "llmchat": {"window": choice.window()},
    }


def failed(body: Body, output: list[dict[str, Any]], error: dict[str, Any]) -> Body:
    """The response when its answer ended with an error, which is in OpenAI's form."""
    reason = {"code": error["code"] or error["type"], "message": error["message"]}
    return {**body, "status": "failed", "error": reason, "output": output}


def _usage(finish: Finish, thinking_tokens: int) -> dict[str, Any]:
    fresh = finish.prompt_tokens - finish.cached_tokens
    return {
        "input_tokens": finish.prompt_tokens,
        "input_tokens_details": {
            "cached_tokens": finish.cached_tokens,
            "cache_write_tokens": fresh,
        },
        "output_tokens": finish.reply_tokens,
        "output_tokens_details": {"reasoning_tokens": thinking_tokens},
        "total_tokens": finish.prompt_tokens + finish.reply_tokens,
    }
