"""Tools in OpenAI's API: the fields of a request, and the calls in a streamed answer."""

import json
from typing import Any

from msgspec import Struct

from llmchat.calls import Call, ToolRequest
from llmchat.engines.openai_api.dialects import Dialect
from llmchat.errors import UsageError


def tool_fields(tools: ToolRequest | None, dialect: Dialect) -> dict[str, Any]:
    """The fields that offer tools. Raises UsageError if the server does not enforce the choice."""
    if tools is None or not tools.tools or (tools.choice == "none" and not tools.name):
        return {}
    fields: dict[str, Any] = {"tools": list(tools.offered)}
    if tools.name or tools.choice == "required":
        if not dialect.tool_choice:
            raise UsageError(
                f"{dialect.title} cannot make a model call a tool", "leave the choice to the model"
            )
        named = {"type": "function", "function": {"name": tools.name}}
        fields["tool_choice"] = named if tools.name else "required"
    return fields | ({} if tools.parallel else {"parallel_tool_calls": False})


class _Piece(Struct):
    """A call as far as it has arrived."""

    id: str = ""
    name: str = ""
    arguments: str = ""


class CallCollector:
    """Joins the pieces of calls in `delta.tool_calls`."""

    def __init__(self) -> None:
        self._pieces: dict[int, _Piece] = {}

    def feed(self, deltas: Any) -> None:
        """Add the `tool_calls` of a delta or a message; anything else is ignored."""
        for number, delta in enumerate(deltas if isinstance(deltas, list) else ()):
            if isinstance(delta, dict):
                self._add(delta, number)

    def _add(self, delta: dict[str, Any], number: int) -> None:
        index = delta.get("index")
        # Servers that send whole calls may leave the index out.
        piece = self._pieces.setdefault(
            index if isinstance(index, int) else len(self._pieces) + number, _Piece()
        )
        function = delta.get("function") or {}
        piece.id = piece.id or str(delta.get("id") or "")
        piece.name += function.get("name") or ""
        arguments = function.get("arguments") or ""
        # Some servers send an object instead of its JSON.
        piece.arguments += arguments if isinstance(arguments, str) else json.dumps(arguments)

    def calls(self) -> tuple[tuple[Call, ...], str]:
        """The calls in order, and as text those whose arguments are no JSON object."""
        found: list[Call] = []
        broken = ""
        for index, piece in sorted(self._pieces.items()):
            arguments = _object(piece.arguments or "{}")
            if arguments is None or not piece.name:
                broken += f"\n{piece.name}({piece.arguments})"
            else:
                found.append(Call(piece.id or f"call_{index}", piece.name, arguments))
        return tuple(found), broken.strip()


def _object(text: str) -> dict[str, Any] | None:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None
