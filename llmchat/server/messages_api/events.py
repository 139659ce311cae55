"""An answer in Anthropic's form: as the events of a stream, and as a whole message."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from llmchat.engines import Finish
from llmchat.server.choice import Choice
from llmchat.server.messages_api.schema import MessagesRequest
from llmchat.server.streaming_response import sse_event


def event(name: str, **fields: Any) -> bytes:
    """A server-sent event; Anthropic repeats its name as `type` in the data."""
    return sse_event({"type": name, **fields}, name)


class Blocks:
    """The content blocks of an answer while it grows. At most one is open.

    hide_thoughts: blocks of thoughts stay empty.
    """

    def __init__(self, *, hide_thoughts: bool):
        self._hide_thoughts = hide_thoughts
        self._index = -1
        self._open = ""

    def feed(self, delta: Mapping[str, Any]) -> Iterator[bytes]:
        """The events of a `delta` of OpenAI's form."""
        if thought := delta.get("reasoning_content"):
            yield from self._grow(thought_block(""))
            if not self._hide_thoughts:
                yield self._delta(type="thinking_delta", thinking=thought)
        if text := delta.get("content"):
            yield from self._grow(text_block(""))
            yield self._delta(type="text_delta", text=text)
        for call in delta.get("tool_calls", ()):
            yield from self.end()
            yield from self._grow(call_block(call) | {"input": {}})
            arguments = call["function"]["arguments"]
            yield self._delta(type="input_json_delta", partial_json=arguments)

    def end(self) -> Iterator[bytes]:
        """Close the open block."""
        if self._open:
            self._open = ""
            yield event("content_block_stop", index=self._index)

    def _grow(self, block: dict[str, Any]) -> Iterator[bytes]:
        """Start this block, unless one of its type is open."""
        if self._open == block["type"]:
            return
        yield from self.end()
        self._index, self._open = self._index + 1, block["type"]
        yield event("content_block_start", index=self._index, content_block=block)

    def _delta(self, **delta: Any) -> bytes:
        return event("content_block_delta", index=self._index, delta=delta)


def content(choice: Choice, *, hide_thoughts: bool) -> list[dict[str, Any]]:
    """The content blocks of a complete answer."""
    thinking = "" if hide_thoughts else choice.thinking
    return [
        *([thought_block(thinking)] if choice.thinking else []),
        *([text_block(choice.text)] if choice.text else []),
        *map(call_block, choice.calls),
    ]


def thought_block(text: str) -> dict[str, Any]:
    """Anthropic signs thoughts, so that clients cannot change them; here they are not read again,
    and the signature is empty."""
    return {"type": "thinking", "thinking": text, "signature": ""}


def text_block(text: str) -> dict[str, Any]:
    return {"type": "text", "text": text}


def call_block(call: Mapping[str, Any]) -> dict[str, Any]:
    """call: in OpenAI's form"""
    function = call["function"]
    arguments = json.loads(function["arguments"])
    return {"type": "tool_use", "id": call["id"], "name": function["name"], "input": arguments}


def ending(choice: Choice, request: MessagesRequest) -> dict[str, str | None]:
    """The stop reason of a complete answer."""
    assert choice.finish is not None
    reason, stop = choice.finish_reason, choice.finish.stop
    if reason == "tool_calls":
        return {"stop_reason": "tool_use", "stop_sequence": None}
    if reason == "length":
        is_asked = choice.finish.reply_tokens >= request.max_tokens
        full = "max_tokens" if is_asked else "model_context_window_exceeded"
        return {"stop_reason": full, "stop_sequence": None}
    if stop and stop in (request.stop_sequences or ()):
        return {"stop_reason": "stop_sequence", "stop_sequence": stop}
    return {"stop_reason": "end_turn", "stop_sequence": None}


def usage(finish: Finish) -> dict[str, int]:
    """The token counts; Anthropic counts cached prompt tokens separately."""
    return input_usage(finish.prompt_tokens, finish.cached_tokens, finish.reply_tokens)


def input_usage(prompt: int, cached: int = 0, reply: int = 0) -> dict[str, int]:
    return {
        "input_tokens": prompt - cached,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": cached,
        "output_tokens": reply,
    }
