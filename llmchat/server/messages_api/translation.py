"""Anthropic's requests as ChatRequests, checked so that errors name Anthropic's fields."""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from llmchat.server.api import (
    OWN_PARAMETERS,
    CalledFunction,
    ChatMessage,
    ChatRequest,
    Function,
    JsonSchema,
    NamedFunction,
    NamedTool,
    ResponseFormat,
    Tool,
    ToolCall,
)
from llmchat.server.compatibility import Defaults, unsupported
from llmchat.server.errors import BadRequest, Unsupported
from llmchat.server.messages_api.errors import NoThreads
from llmchat.server.messages_api.schema import (
    AnthropicMessage,
    AnthropicTool,
    Block,
    ContextManagement,
    CountRequest,
    OutputConfig,
    ThinkingConfig,
    ToolChoice,
)
from llmchat.server.request_parsing import check_fields

# Fields that never change the answer: prefixes of prompts are cached anyway, nobody pays, and no
# local model declines a request, so that none falls back to another.
_IGNORED = frozenset({
    "cache_control", "inference_geo", "speed", "user_profile_id", "workspace_id", "diagnostics",
    "billing_policy", "fallbacks", "fallback_credit_token",
})  # fmt: skip
# How signed thoughts are checked; they are never sent to the model again.
_IGNORED_OF_THINKING = frozenset({"block_binding"})
# Fields of tools: calls are always bound by the schema, and arguments arrive at once.
_IGNORED_OF_TOOLS = frozenset({"cache_control", "eager_input_streaming"})
# Values of other fields that request the default behaviour.
_DEFAULTS: Defaults = {
    "defer_loading": (False,),
    "allowed_callers": (["direct"],),
    "input_examples": ([],),
    "mcp_servers": ([],),
    "caller": ({"type": "direct"},),
    "clear_at": ("never",),
    "container": ({}, {"id": None}),
}
# An effort for the turns after a system message.
_DEFAULTS_OF_MESSAGES: Defaults = {**_DEFAULTS, "output_config": ({}, {"effort": None})}
# The types of blocks that messages of a role may have. Those of _UNREAD are never sent to a model.
_UNREAD = ("thinking", "redacted_thinking", "fallback")
_TYPES = {
    "system": ("text",),
    "user": ("text", "tool_result"),
    "assistant": ("text", "tool_use", *_UNREAD),
    "tool_result": ("text",),
}
# The fields that a block of a type can have, and those of them that it must have.
_FIELDS = {
    "text": ("text",),
    "tool_use": ("id", "name", "input"),
    "tool_result": ("tool_use_id", "content", "is_error"),
    "thinking": ("thinking", "signature"),
    "redacted_thinking": ("data",),
    "fallback": ("from", "to", "trigger"),
}
_REQUIRED = {
    "text": ("text",),
    "tool_use": ("id", "name", "input"),
    "tool_result": ("tool_use_id",),
}
# Fields of blocks that never change the prompt: what clients copy from answers, and caching.
_IGNORED_OF_BLOCKS = frozenset({"cache_control", "citations"})
_PARAGRAPH = "\n\n"
_DECLARED = tuple(name for name in Block.model_fields if name != "type")
# Fields that have the same name and meaning in both APIs.
_SAME = (
    "model", "max_tokens", "stream", "temperature", "top_p", "seed", "truncation", "keep_alive",
    *OWN_PARAMETERS,
)  # fmt: skip


def to_chat(request: CountRequest) -> ChatRequest:
    """Raises BadRequest for fields and values that the server does not support."""
    _check_all_fields(request)
    same = {name: getattr(request, name, None) for name in _SAME}
    fields = {
        "messages": _messages(request),
        "stop": getattr(request, "stop_sequences", None),
        "tools": [_tool(tool, index) for index, tool in enumerate(request.tools or ())] or None,
        **_choice(request.tool_choice),
        **_thinking(request.thinking),
        **_output(request.output_config),
    }
    # Everything was checked as a part of `request`.
    return ChatRequest.model_construct(**same, **fields)


def _check_all_fields(request: CountRequest) -> None:
    """Raises Unsupported for a field that the server does not support."""
    if (request.model_extra or {}).get("thread") is not None:
        raise NoThreads()
    check_fields(request, "", _IGNORED, _DEFAULTS)
    for name in ("tool_choice", "thinking", "output_config", "context_management"):
        if (part := getattr(request, name)) is not None:
            ignored = _IGNORED_OF_THINKING if name == "thinking" else ()
            check_fields(part, f"{name}.", ignored, _DEFAULTS)
    for index, message in enumerate(request.messages):
        check_fields(message, f"messages.{index}.", (), _DEFAULTS_OF_MESSAGES)
    _check_edits(request.context_management)


def _check_edits(management: ContextManagement | None) -> None:
    """Thoughts are never sent again, so clearing them needs no work. Other edits would."""
    for index, edit in enumerate((management and management.edits) or ()):
        if not edit.type.startswith("clear_thinking_"):
            message = f"the edit `{edit.type[:60]}` is not supported"
            raise Unsupported(message, f"context_management.edits.{index}.type")


def _messages(request: CountRequest) -> list[ChatMessage]:
    messages = []
    if request.system:
        blocks = _blocks(request.system, "system", "system")
        messages.append(ChatMessage(role="system", content=_joined(blocks)))
    for index, message in enumerate(request.messages):
        blocks = _blocks(message.content, message.role, f"messages.{index}.content")
        messages += _turn(message.role, blocks, index)
    _check_results(request.messages)
    return messages


def _turn(role: str, blocks: Sequence[Block], index: int) -> Iterator[ChatMessage]:
    if role == "assistant":
        yield _answer(blocks)
    elif role == "user":
        yield from _question(blocks, index)
    else:
        yield ChatMessage(role="system", content=_joined(blocks))


def _blocks(
    content: str | list[Block] | dict[str, Any] | None, role: str, where: str
) -> list[Block]:
    """The blocks of a content. Raises BadRequest for those that a role cannot have."""
    if isinstance(content, dict):
        raise BadRequest("must be a text or a list of blocks", param=where)
    if not isinstance(content, list):
        return [Block(type="text", text=content or "")]
    for index, block in enumerate(content):
        _check_block(block, role, f"{where}.{index}")
    return content


def _check_block(block: Block, role: str, where: str) -> None:
    kind = block.type[:60]
    if kind not in _FIELDS:
        message = f"`{kind}` blocks are not supported; this server only reads text"
        raise BadRequest(message, param=f"{where}.type")
    if kind not in _TYPES[role]:
        place = "a tool result" if role == "tool_result" else f"the role `{role}`"
        raise BadRequest(f"`{kind}` blocks are not allowed in {place}", param=f"{where}.type")
    _check_fields_of(block, where)
    for name in _REQUIRED.get(kind, ()):
        if getattr(block, name) is None:
            raise BadRequest(f"a `{kind}` block requires `{name}`", param=f"{where}.{name}")


def _check_fields_of(block: Block, where: str) -> None:
    """Raises Unsupported for a field that a block of this type does not have."""
    fields = {**(block.model_extra or {}), **{name: getattr(block, name) for name in _DECLARED}}
    others = {name: value for name, value in fields.items() if name not in _FIELDS[block.type]}
    if (name := unsupported(others, _IGNORED_OF_BLOCKS, _DEFAULTS)) is not None:
        path = f"{where}.{name}"[:100]
        raise Unsupported(f"`{path}` is not supported in a `{block.type}` block", path)


def _joined(blocks: Sequence[Block], separator: str = _PARAGRAPH) -> str:
    texts = (block.text for block in blocks if block.type == "text")
    return separator.join(text for text in texts if text)


def _answer(blocks: Sequence[Block]) -> ChatMessage:
    calls = [_call(block) for block in blocks if block.type == "tool_use"]
    # The blocks of one answer are pieces of one text.
    text = _joined(blocks, "")
    return ChatMessage(role="assistant", content=text, tool_calls=calls or None)


def _call(block: Block) -> ToolCall:
    arguments = json.dumps(block.input, ensure_ascii=False)
    function = CalledFunction(name=block.name or "", arguments=arguments)
    return ToolCall(id=block.id or "", function=function)


def _question(blocks: Sequence[Block], index: int) -> Iterator[ChatMessage]:
    """The results of tools, then what the user writes."""
    for number, block in enumerate(blocks):
        if block.type == "tool_result":
            where = f"messages.{index}.content.{number}.content"
            text = _joined(_blocks(block.content, "tool_result", where))
            text = f"error: {text}" if block.is_error else text
            yield ChatMessage(role="tool", content=text, tool_call_id=block.tool_use_id)
    texts = [block for block in blocks if block.type == "text"]
    if texts or not blocks:
        yield ChatMessage(role="user", content=_joined(texts))


def _check_results(messages: Sequence[AnthropicMessage]) -> None:
    """Each call is followed by its result, and each result follows its call. Raises BadRequest."""
    missing: dict[str, str] = {}
    for index, message in enumerate(messages):
        blocks = message.content if isinstance(message.content, list) else []
        if message.role == "assistant":
            _refuse_missing(missing)
        for number, block in enumerate(blocks):
            where = f"messages.{index}.content.{number}"
            if block.type == "tool_use":
                missing[block.id or ""] = f"{where}.id"
            elif block.type == "tool_result" and missing.pop(block.tool_use_id or "", None) is None:
                id = (block.tool_use_id or "")[:80]
                message_ = f"no earlier message has an unanswered `tool_use` with the id `{id}`"
                raise BadRequest(message_, param=f"{where}.tool_use_id")
    _refuse_missing(missing)


def _refuse_missing(missing: Mapping[str, str]) -> None:
    for id, where in missing.items():
        message = f"the `tool_use` with the id `{id[:80]}` has no `tool_result` after it"
        raise BadRequest(message, param=where)


def _tool(tool: AnthropicTool, index: int) -> Tool:
    where = f"tools.{index}"
    if tool.type not in (None, "custom"):
        message = f"tools of type `{(tool.type or '')[:60]}` are not supported; `custom` ones are"
        raise Unsupported(message, f"{where}.type")
    if tool.name is None:
        raise BadRequest("a tool requires `name`", param=f"{where}.name")
    if tool.input_schema is None:
        raise BadRequest("a tool requires `input_schema`", param=f"{where}.input_schema")
    check_fields(tool, f"{where}.", _IGNORED_OF_TOOLS, _DEFAULTS)
    function = Function(name=tool.name, description=tool.description, parameters=tool.input_schema)
    return Tool(type="function", function=function)


def _choice(choice: ToolChoice | None) -> dict[str, Any]:
    if choice is None:
        return {}
    if choice.type == "tool" and not choice.name:
        raise BadRequest("the choice `tool` requires `name`", param="tool_choice.name")
    named = NamedTool(type="function", function=NamedFunction(name=choice.name or ""))
    made = {"auto": "auto", "any": "required", "none": "none", "tool": named}[choice.type]
    one = choice.disable_parallel_tool_use
    return {"tool_choice": made, "parallel_tool_calls": None if one is None else not one}


def _thinking(thinking: ThinkingConfig | None) -> dict[str, Any]:
    """Without the field, and with `adaptive`, the model thinks as its template does by itself."""
    if thinking is None or thinking.type == "adaptive":
        return {}
    if thinking.type == "disabled":
        return {"think": "off"}
    if thinking.budget_tokens is None:
        message = "`enabled` requires `budget_tokens`"
        raise BadRequest(message, param="thinking.budget_tokens")
    return {"think": "on", "think_budget": thinking.budget_tokens}


def _output(output: OutputConfig | None) -> dict[str, Any]:
    """`high` is Anthropic's default effort, so it is the same as none."""
    if output is None:
        return {}
    effort = None if output.effort == "high" else output.effort
    if output.format is None:
        return {"reasoning_effort": effort}
    schema = JsonSchema.model_validate({"schema": output.format.schema_})
    form = ResponseFormat(type="json_schema", json_schema=schema)
    return {"reasoning_effort": effort, "response_format": form}
