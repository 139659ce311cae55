"""Refuses fields that the server does not support, as `request_parsing.check_chat` does."""

from llmchat.server.api import Request
from llmchat.server.compatibility import Defaults
from llmchat.server.request_parsing import check_fields
from llmchat.server.responses_api.schema import (
    AnyTool,
    CustomTool,
    Namespace,
    ReasoningItem,
    ResponseRequest,
)

# max_tool_calls limits tools that the server would run, and it runs none; it reads no images and
# has no programs of access.
_IGNORED = frozenset({"max_tool_calls", "client_metadata", "image", "access_programs"})
_DEFAULTS: Defaults = {"background_options": ({}, {"completion_window": "soonest"})}
_REASONING_DEFAULTS: Defaults = {
    "context": ("auto",),
    "generate_summary": ("auto",),
    "mode": ("standard",),
}
# What clients copy from the items of answers.
_IGNORED_IN_ITEMS = frozenset({"id", "status", "phase", "caller", "name", "namespace"})
_TOOL_DEFAULTS: Defaults = {
    "defer_loading": (False,),
    "async": (False,),
    "allowed_callers": (["direct"],),
}


def check(request: ResponseRequest) -> None:
    """Raises BadRequest for fields that the server does not support."""
    check_fields(request, "", _IGNORED, _DEFAULTS)
    for name in ("text", "reasoning", "stream_options", "tool_choice"):
        if isinstance(part := getattr(request, name), Request):
            check_fields(part, f"{name}.", (), _REASONING_DEFAULTS if name == "reasoning" else None)
    if request.text and request.text.format:
        check_fields(request.text.format, "text.format.")
    for index, item in enumerate(request.input if isinstance(request.input, list) else ()):
        # Nothing of thoughts is used.
        if not isinstance(item, ReasoningItem):
            check_fields(item, f"input.{index}.", _IGNORED_IN_ITEMS)
    for index, tool in enumerate(request.tools or ()):
        _check_tool(tool, f"tools.{index}.")


def _check_tool(tool: AnyTool, where: str) -> None:
    check_fields(tool, where, ("output_schema",), _TOOL_DEFAULTS)
    if isinstance(tool, CustomTool) and tool.format:
        check_fields(tool.format, f"{where}format.")
    for index, inner in enumerate(tool.tools if isinstance(tool, Namespace) else ()):
        _check_tool(inner, f"{where}tools.{index}.")
