"""The schema of requests, as Anthropic's clients send them.

https://platform.claude.com/docs/en/api/messages. As with chat completions, a field that would
change the answer is obeyed or refused with a 400, and so are unknown fields.
"""

from typing import Annotated, Literal

from pydantic import Field

from llmchat.server.api import (
    MAX_TOOLS,
    Items,
    JsonObject,
    KeepAlive,
    Name,
    OwnParameters,
    Request,
    Seed,
    Stops,
    Temperature,
    Text,
    TopP,
    Truncation,
    Whole,
)


class Block(Request):
    """A part of a message; `type` decides which fields it has (see translation).

    A content that is an object belongs to a type that is not supported.
    """

    type: Text
    text: Text | None = None
    id: Text | None = None
    name: Text | None = None
    input: JsonObject | None = None
    tool_use_id: Text | None = None
    content: Text | Items["Block"] | JsonObject | None = None
    is_error: bool | None = None


class AnthropicMessage(Request):
    role: Literal["system", "user", "assistant"]
    content: Text | Items[Block]


class AnthropicTool(Request):
    """A tool that the client runs; one with another type than `custom` would run at Anthropic.

    name: only sets of such tools have none
    """

    name: Name | None = None
    type: Text | None = None
    description: Text | None = None
    input_schema: JsonObject | None = None
    strict: bool | None = None


class ToolChoice(Request):
    type: Literal["auto", "any", "tool", "none"]
    name: Text | None = None
    disable_parallel_tool_use: bool | None = None


class ThinkingConfig(Request):
    """display `omitted`: the blocks of thoughts are empty."""

    type: Literal["enabled", "disabled", "adaptive"]
    budget_tokens: Annotated[int, Whole, Field(ge=1, le=2**31 - 1)] | None = None
    display: Literal["summarized", "omitted"] | None = None


class OutputFormat(Request):
    type: Literal["json_schema"]
    schema_: Annotated[JsonObject, Field(alias="schema")]


class OutputConfig(Request):
    effort: Text | None = None
    format: OutputFormat | None = None


class ContextEdit(Request):
    type: Text


class ContextManagement(Request):
    """What Anthropic's servers leave out of a conversation before the model reads it."""

    edits: Items[ContextEdit] | None = None


class CountRequest(Request):
    """What decides on the prompt. keep_alive: see api.Generation."""

    model: Text
    messages: Annotated[Items[AnthropicMessage], Field(min_length=1)]
    system: Text | Items[Block] | None = None
    tools: Annotated[Items[AnthropicTool], Field(max_length=MAX_TOOLS)] | None = None
    tool_choice: ToolChoice | None = None
    thinking: ThinkingConfig | None = None
    output_config: OutputConfig | None = None
    context_management: ContextManagement | None = None
    keep_alive: KeepAlive | None = None


class MessagesRequest(CountRequest, OwnParameters):
    """The fields of OwnParameters (but top_k), seed, truncation and keep_alive are not Anthropic's.

    Its API has no temperature, top_p and top_k since version 2026-10-21; local models need them.
    """

    max_tokens: Annotated[int, Whole, Field(ge=1, le=2**31)]
    stream: bool | None = None
    temperature: Temperature | None = None
    top_p: TopP | None = None
    stop_sequences: Stops | None = None
    seed: Seed | None = None
    truncation: Truncation | None = None
