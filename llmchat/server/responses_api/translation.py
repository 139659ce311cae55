"""Turns a request and the items of its conversation into a ChatRequest."""

import json
from collections.abc import Sequence
from typing import Any, Literal

from msgspec import Struct

from llmchat.server.api import (
    MAX_FUNCTION_NAME,
    MAX_TOOLS,
    OWN_PARAMETERS,
    CalledFunction,
    ChatMessage,
    ChatRequest,
    ContentPart,
    ToolCall,
)
from llmchat.server.errors import BadRequest
from llmchat.server.responses_api.schema import (
    AllowedTools,
    CallOutput,
    ChosenTool,
    CustomCall,
    CustomTool,
    FunctionCall,
    FunctionTool,
    InputMessage,
    Item,
    Namespace,
    Part,
    ResponseRequest,
)

# Fields that have the same name and meaning in both requests.
_SAME = (
    *OWN_PARAMETERS, "model", "temperature", "top_p", "top_logprobs", "parallel_tool_calls",
    "truncation", "seed", "stop", "keep_alive", "user",
)  # fmt: skip
LOGPROBS = "message.output_text.logprobs"
# The only argument of a custom tool, as the model writes it.
_INPUT = {
    "type": "object",
    "properties": {"input": {"type": "string"}},
    "required": ["input"],
    "additionalProperties": False,
}
_TEXT_PARTS = ("input_text", "output_text", "text", "summary_text")


class CalledTool(Struct, frozen=True):
    """What a name in a ChatRequest stands for."""

    kind: Literal["function", "custom"]
    name: str
    namespace: str | None = None


def to_chat(request: ResponseRequest, items: Sequence[Item]) -> ChatRequest:
    """The request for a chat about the items of the whole conversation. Raises BadRequest."""
    _check_calls(items)
    fields = {name: getattr(request, name) for name in _SAME}
    wants_logprobs = LOGPROBS in (request.include or ())
    if not wants_logprobs:
        fields["top_logprobs"] = None
    tools, choice = _tools(request)
    messages = _messages(request.instructions, items)
    if not messages:
        raise BadRequest("`input` contains no message", param="input")
    return ChatRequest.model_validate({
        **{name: value for name, value in fields.items() if value is not None},
        "messages": messages,
        "max_completion_tokens": request.max_output_tokens,
        "logprobs": wants_logprobs,
        "tools": tools or None,
        "tool_choice": choice,
        "response_format": _response_format(request),
        "reasoning_effort": request.reasoning.effort if request.reasoning else None,
    })  # fmt: skip


def called_tools(request: ResponseRequest) -> dict[str, CalledTool]:
    """The tools by the names that they have in the ChatRequest."""
    return {
        chat_name(tool.name, namespace): CalledTool(tool.type, tool.name, namespace)
        for namespace, tool in _flat(request)
    }


def chat_name(name: str, namespace: str | None) -> str:
    """The name of a tool in a ChatRequest, where namespaces do not exist."""
    return f"{namespace}.{name}" if namespace else name


def _flat(request: ResponseRequest) -> list[tuple[str | None, FunctionTool | CustomTool]]:
    """All tools, each with its namespace. Raises BadRequest for too many."""
    flat: list[tuple[str | None, FunctionTool | CustomTool]] = []
    for tool in request.tools or ():
        if isinstance(tool, Namespace):
            flat += [(tool.name, inner) for inner in tool.tools]
        else:
            flat.append((None, tool))
    if len(flat) > MAX_TOOLS:
        raise BadRequest(f"`tools` has more than {MAX_TOOLS:,} tools", param="tools")
    return flat


def _tools(request: ResponseRequest) -> tuple[list[dict[str, Any]], Any]:
    """The definitions of the tools that may be called, and the choice among them."""
    choice, defined = request.tool_choice, _flat(request)
    if isinstance(choice, AllowedTools):
        allowed = {chat_name(one.name, one.namespace) for one in choice.tools}
        known = {chat_name(tool.name, namespace) for namespace, tool in defined}
        if unknown := sorted(allowed - known):
            message = f"`tool_choice` names `{unknown[0][:64]}`, which `tools` does not have"
            raise BadRequest(message, param="tool_choice")
        defined = [one for one in defined if chat_name(one[1].name, one[0]) in allowed]
        return [_definition(*one) for one in defined], choice.mode
    if isinstance(choice, ChosenTool):
        name = chat_name(choice.name, choice.namespace)
        choice_in_chat: Any = {"type": "function", "function": {"name": name}}
        return [_definition(*one) for one in defined], choice_in_chat
    return [_definition(*one) for one in defined], choice


def _definition(namespace: str | None, tool: FunctionTool | CustomTool) -> dict[str, Any]:
    name = chat_name(tool.name, namespace)
    if len(name) > MAX_FUNCTION_NAME:
        message = f"`{name[:64]}…` is longer than {MAX_FUNCTION_NAME} characters"
        raise BadRequest(message, param="tools")
    parameters = tool.parameters if isinstance(tool, FunctionTool) else _INPUT
    function = {
        "name": name,
        "description": tool.description,
        "parameters": parameters,
    }
    given = {name: value for name, value in function.items() if value is not None}
    return {"type": "function", "function": given}


def _response_format(request: ResponseRequest) -> dict[str, Any] | None:
    asked = request.text.format if request.text else None
    if asked is None or asked.type != "json_schema":
        return {"type": asked.type} if asked else None
    if asked.schema_ is None:
        raise BadRequest("`text.format` has no `schema`", param="text.format.schema")
    return {"type": "json_schema", "json_schema": {"name": asked.name, "schema": asked.schema_}}


def _check_calls(items: Sequence[Item]) -> None:
    """Raises BadRequest for a call without its output, or an output without its call."""
    called: set[str] = set()
    open_calls: dict[str, int] = {}
    for index, item in enumerate(items):
        if isinstance(item, FunctionCall | CustomCall):
            called.add(item.call_id)
            open_calls[item.call_id] = index
        elif isinstance(item, CallOutput):
            if item.call_id not in called:
                message = f"there is no call with the id `{item.call_id[:64]}`"
                raise BadRequest(message, param="input")
            open_calls.pop(item.call_id, None)
    if open_calls:
        call_id = next(iter(open_calls))
        raise BadRequest(f"the call `{call_id[:64]}` has no output", param="input")


def _messages(instructions: str | None, items: Sequence[Item]) -> list[ChatMessage]:
    messages = [ChatMessage(role="system", content=instructions)] if instructions else []
    for item in items:
        _add(messages, item)
    return messages


def _add(messages: list[ChatMessage], item: Item) -> None:
    if isinstance(item, InputMessage):
        _add_message(messages, item)
    elif isinstance(item, FunctionCall):
        _add_call(messages, item, item.arguments)
    elif isinstance(item, CustomCall):
        _add_call(messages, item, json.dumps({"input": item.input}, ensure_ascii=False))
    elif isinstance(item, CallOutput):
        content = _content(item.output)
        messages.append(ChatMessage(role="tool", tool_call_id=item.call_id, content=content))


def _add_message(messages: list[ChatMessage], item: InputMessage) -> None:
    """A text of the answer that made calls belongs to the message with these calls."""
    content, last = _content(item.content), messages[-1] if messages else None
    if item.role == "assistant" and last and last.role == "assistant" and last.tool_calls:
        # Lists grow in place: copies of them would make a long conversation quadratic.
        last.content = _parts(last.content or [])
        last.content += _parts(content)
    else:
        messages.append(ChatMessage(role=item.role, content=content))


def _parts(content: str | list[ContentPart]) -> list[ContentPart]:
    return [ContentPart(type="text", text=content)] if isinstance(content, str) else content


def _add_call(messages: list[ChatMessage], item: FunctionCall | CustomCall, written: str) -> None:
    """Consecutive calls, and the text before them, are one message."""
    if not messages or messages[-1].role != "assistant":
        messages.append(ChatMessage(role="assistant"))
    function = CalledFunction(name=chat_name(item.name, item.namespace), arguments=written)
    call = ToolCall(id=item.call_id, function=function)
    calls = messages[-1].tool_calls or []
    calls.append(call)
    messages[-1].tool_calls = calls


def _content(content: str | list[Part]) -> str | list[ContentPart]:
    return content if isinstance(content, str) else [_part(part) for part in content]


def _part(part: Part) -> ContentPart:
    if part.type in _TEXT_PARTS and part.text is not None:
        return ContentPart(type="text", text=part.text)
    if part.type == "refusal" and part.refusal is not None:
        return ContentPart(type="refusal", refusal=part.refusal)
    kind = part.type[:40]
    if part.type in (*_TEXT_PARTS, "refusal"):
        raise BadRequest(f"a part of type `{kind}` has no text", param="input")
    raise BadRequest(
        f"`{kind}` parts are not supported; this server only reads text", param="input"
    )
