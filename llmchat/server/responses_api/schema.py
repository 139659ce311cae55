"""The schema of requests to /v1/responses, and of the items of a conversation.

https://platform.openai.com/docs/api-reference/responses. As in `server/api.py`, a field that would
change the answer is obeyed or refused by name.
"""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Discriminator, Field, Tag, TypeAdapter
from pydantic_core import PydanticCustomError

from llmchat.server.api import (
    MAX_TOOLS,
    Items,
    JsonObject,
    KeepAlive,
    Name,
    OwnParameters,
    Request,
    Seed,
    Stop,
    Stops,
    Temperature,
    Text,
    Tokens,
    TopLogprobs,
    TopP,
    Truncation,
)

# OpenAI's limit.
_MAX_METADATA = 16


class Part(Request):
    """A part of a message, or of the output of a tool."""

    type: Text
    text: Text | None = None
    refusal: Text | None = None


class InputMessage(Request):
    type: Literal["message"] = "message"
    role: Literal["user", "assistant", "system", "developer"]
    content: Text | Items[Part]


class FunctionCall(Request):
    type: Literal["function_call"]
    call_id: Text
    name: Text
    arguments: Text = ""
    namespace: Text | None = None


class CustomCall(Request):
    """A call of a tool whose argument is a text."""

    type: Literal["custom_tool_call"]
    call_id: Text
    name: Text
    input: Text
    namespace: Text | None = None


class CallOutput(Request):
    type: Literal["function_call_output", "custom_tool_call_output"]
    call_id: Text
    output: Text | Items[Part]


class ReasoningItem(Request):
    """Thoughts of an earlier answer. They are never sent to a model again."""

    type: Literal["reasoning"]


class ItemReference(Request):
    """An item of a stored response."""

    type: Literal["item_reference"] | None = "item_reference"
    id: Text


def _kind_of_item(item: Any) -> Any:
    """The type of an item; messages and references may omit it."""
    if not isinstance(item, dict):
        return getattr(item, "type", None)
    return item.get("type") or (
        "message" if "role" in item or "id" not in item else "item_reference"
    )


def _known(kind: Any, known: tuple[str, ...], what: str) -> None:
    """Raises an error that names the kind of a thing and those that are supported."""
    if kind not in known:
        raise PydanticCustomError(
            "unsupported", "`{kind}` {what} are not supported; the supported ones are {known}",
            {"kind": str(kind)[:40], "what": what, "known": ", ".join(known)},
        )  # fmt: skip


_ITEMS = (
    "message", "function_call", "function_call_output", "custom_tool_call",
    "custom_tool_call_output", "reasoning", "item_reference",
)  # fmt: skip


def _known_item(item: Any) -> Any:
    _known(_kind_of_item(item), _ITEMS, "items")
    return item


Item = Annotated[
    Annotated[InputMessage, Tag("message")]
    | Annotated[FunctionCall, Tag("function_call")]
    | Annotated[CallOutput, Tag("function_call_output")]
    | Annotated[CustomCall, Tag("custom_tool_call")]
    | Annotated[CallOutput, Tag("custom_tool_call_output")]
    | Annotated[ReasoningItem, Tag("reasoning")]
    | Annotated[ItemReference, Tag("item_reference")],
    Discriminator(_kind_of_item),
    BeforeValidator(_known_item),
]
ITEMS: TypeAdapter[list[Item]] = TypeAdapter(Items[Item])


class FunctionTool(Request):
    type: Literal["function"]
    name: Name
    description: Text | None = None
    parameters: JsonObject | None = None
    strict: bool | None = None


class InputFormat(Request):
    """The form of a custom tool's input. A grammar is not enforced."""

    type: Literal["text", "grammar"]
    syntax: Text | None = None
    definition: Text | None = None


class CustomTool(Request):
    """A tool whose argument is a text."""

    type: Literal["custom"]
    name: Name
    description: Text | None = None
    format: InputFormat | None = None


def _kind(value: Any) -> Any:
    return value.get("type") if isinstance(value, dict) else getattr(value, "type", None)


def _known_tool(tool: Any) -> Any:
    _known(_kind(tool), ("function", "custom", "namespace"), "tools")
    return tool


def _known_inner_tool(tool: Any) -> Any:
    _known(_kind(tool), ("function", "custom"), "tools in a namespace")
    return tool


InnerTool = Annotated[
    Annotated[FunctionTool, Tag("function")] | Annotated[CustomTool, Tag("custom")],
    Discriminator(_kind),
    BeforeValidator(_known_inner_tool),
]


class Namespace(Request):
    """Tools that share the first part of their names."""

    type: Literal["namespace"]
    name: Name
    description: Text | None = None
    tools: Annotated[Items[InnerTool], Field(max_length=MAX_TOOLS)]


AnyTool = Annotated[
    Annotated[FunctionTool, Tag("function")]
    | Annotated[CustomTool, Tag("custom")]
    | Annotated[Namespace, Tag("namespace")],
    Discriminator(_kind),
    BeforeValidator(_known_tool),
]


class ChosenTool(Request):
    type: Literal["function", "custom"]
    name: Text
    namespace: Text | None = None


class AllowedTools(Request):
    """The tools of the request that the answer may call."""

    type: Literal["allowed_tools"]
    mode: Literal["auto", "required"]
    tools: Annotated[Items[ChosenTool], Field(min_length=1)]


class TextFormat(Request):
    """The form of the answer. Every schema is enforced, whatever `strict` says."""

    type: Literal["text", "json_object", "json_schema"]
    name: Text = ""
    description: Text | None = None
    schema_: Annotated[JsonObject | bool | None, Field(alias="schema")] = None
    strict: bool | None = None


class TextOptions(Request):
    format: TextFormat | None = None
    verbosity: Literal["medium"] | None = None


class Reasoning(Request):
    """summary: `auto` leaves the choice to the server, which writes none: the thoughts themselves
    are in the answer."""

    effort: Text | None = None
    summary: Literal["auto"] | None = None


class StreamOptions(Request):
    pass


Include = Literal[
    "message.output_text.logprobs",
    "reasoning.encrypted_content",
    # Of tools and inputs that the server does not have, so that there is nothing to include.
    "file_search_call.results",
    "web_search_call.results",
    "web_search_call.action.sources",
    "message.input_image.image_url",
    "computer_call_output.output.image_url",
    "code_interpreter_call.outputs",
]


class ResponseRequest(OwnParameters):
    """Those of OwnParameters, seed, stop and keep_alive are not OpenAI's."""

    model: Text
    input: Text | Annotated[Items[Item], Field(min_length=1)]
    instructions: Text | None = None
    previous_response_id: Text | None = None
    store: bool | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    max_output_tokens: Tokens = None
    temperature: Temperature | None = None
    top_p: TopP | None = None
    top_logprobs: TopLogprobs | None = None
    include: Items[Include] | None = None
    tools: Annotated[Items[AnyTool], Field(max_length=MAX_TOOLS)] | None = None
    tool_choice: Literal["none", "auto", "required"] | ChosenTool | AllowedTools | None = None
    parallel_tool_calls: bool | None = None
    text: TextOptions | None = None
    reasoning: Reasoning | None = None
    truncation: Truncation | None = None
    background: Literal[False] | None = None
    metadata: Annotated[dict[Text, Text], Field(max_length=_MAX_METADATA)] | None = None
    user: Any = None
    seed: Seed | None = None
    stop: Stop | Stops | None = None
    keep_alive: KeepAlive | None = None
