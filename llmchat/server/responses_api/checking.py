"""Refuses fields that the server does not support, as `request_parsing.check_chat` does."""

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel

from llmchat.server.api import Request
from llmchat.server.compatibility import unsupported
from llmchat.server.errors import Unsupported
from llmchat.server.request_parsing import check_fields
from llmchat.server.responses_api.schema import (
    AnyTool,
    CustomTool,
    Namespace,
    ReasoningItem,
    ResponseRequest,
)

# max_tool_calls limits tools that the server would run, and it runs none.
_IGNORED = frozenset({"max_tool_calls", "client_metadata"})
# What clients copy from the items of answers.
_IGNORED_IN_ITEMS = frozenset({"id", "status", "phase", "caller", "name", "namespace"})
_TOOL_DEFAULTS: Mapping[str, tuple[Any, ...]] = {
    "defer_loading": (False,),
    "async": (False,),
    "allowed_callers": (["direct"],),
}


def check(request: ResponseRequest) -> None:
    """Raises BadRequest for fields that the server does not support."""
    _refuse(request, "", _IGNORED)
    for name in ("text", "reasoning", "stream_options", "tool_choice"):
        if isinstance(part := getattr(request, name), Request):
            check_fields(part, f"{name}.")
    if request.text and request.text.format:
        check_fields(request.text.format, "text.format.")
    for index, item in enumerate(request.input if isinstance(request.input, list) else ()):
        # Nothing of thoughts is used.
        if not isinstance(item, ReasoningItem):
            _refuse(item, f"input.{index}.", _IGNORED_IN_ITEMS)
    for index, tool in enumerate(request.tools or ()):
        _check_tool(tool, f"tools.{index}.")


def _check_tool(tool: AnyTool, where: str) -> None:
    _refuse(tool, where, frozenset({"output_schema"}), _TOOL_DEFAULTS)
    if isinstance(tool, CustomTool) and tool.format:
        check_fields(tool.format, f"{where}format.")
    for index, inner in enumerate(tool.tools if isinstance(tool, Namespace) else ()):
        _check_tool(inner, f"{where}tools.{index}.")


def _refuse(
    part: BaseModel,
    where: str,
    ignored: frozenset[str],
    defaults: Mapping[str, tuple[Any, ...]] | None = None,
) -> None:
    known = defaults or {}
    extra = {
        name: value
        for name, value in (part.model_extra or {}).items()
        if name not in ignored and value not in known.get(name, ())
    }
    if (name := unsupported(extra)) is not None:
        path = f"{where}{name}"[:100]
        raise Unsupported(f"`{path}` is not supported", path)
