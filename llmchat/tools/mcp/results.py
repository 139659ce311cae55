"""The result of a call as text for the model."""

import json
from typing import Any

from llmchat.tools import Output, ToolError
from llmchat.tools.mcp.definitions import clean

_LONGEST_ERROR = 2_000


def output(result: dict[str, Any]) -> Output:
    """Text parts, else the structured content as JSON; a line for an image, a sound or a file.

    Raises ToolError for a result that is marked as an error.
    """
    parts = [_part(block) for block in result.get("content") or []]
    structured = result.get("structuredContent")
    if structured is not None and not any(_is_text(block) for block in result.get("content") or []):
        parts.append(json.dumps(structured, ensure_ascii=False))
    text = "\n".join(parts)
    if result.get("isError"):
        raise ToolError(clean(text, _LONGEST_ERROR) or "the tool failed and gave no reason")
    return Output(text, untrusted=True)


def _is_text(block: dict[str, Any]) -> bool:
    return block.get("type") == "text"


def _part(block: dict[str, Any]) -> str:
    match block:
        case {"type": "text", "text": str(text)}:
            return text
        case {"type": "image" | "audio" as kind, "data": str(data)}:
            return f"[{kind}: {_mime(block)}, {_size(data)}]"
        case {"type": "resource_link", "uri": uri}:
            return f"[link: {uri}, {_mime(block)}]"
        case {"type": "resource", "resource": {"text": str(text), "uri": uri}}:
            return f"[resource: {uri}]\n{text}"
        case {"type": "resource", "resource": {"blob": str(data), "uri": uri} as resource}:
            return f"[resource: {uri}, {_mime(resource)}, {_size(data)}]"
    return f"[{clean(str(block.get('type')), 40)}]"


def _mime(block: dict[str, Any]) -> str:
    return clean(str(block.get("mimeType") or "unknown type"), 80)


def _size(base64: str) -> str:
    return f"{len(base64) * 3 // 4:,} bytes"
