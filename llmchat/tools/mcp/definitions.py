"""What a server says about its tools, made fit for a model. None of it is trusted."""

import hashlib
import json
import re
from collections.abc import Collection
from typing import Any

from msgspec import Struct

from llmchat.errors import UsageError
from llmchat.output.terminal_text import harmless
from llmchat.tools.mcp.config import Server

# More tools than this make no small model happy, and OpenAI's API takes no more.
MOST_TOOLS = 128
LONGEST_DESCRIPTION = 4_000
LARGEST_SCHEMA = 64_000
DEEPEST_SCHEMA = 64
_LONGEST_NAME = 64


class Definition(Struct, frozen=True):
    """A tool of a server. remote: the server's own name of it; claims_read_only: as it says."""

    remote: str
    description: str
    parameters: dict[str, Any]
    claims_read_only: bool


class Listing(Struct, frozen=True):
    """The tools of a server that are offered, and lines about those that are not."""

    tools: tuple[Definition, ...] = ()
    notes: tuple[str, ...] = ()


def listing(server: Server, entries: list[Any]) -> Listing:
    """Check the entries of `tools/list`."""
    wanted = [entry for entry in entries if _wanted(entry, server)]
    tools, faults = dict[str, Definition](), list[str]()
    for entry in wanted[:MOST_TOOLS]:
        try:
            tool = _definition(entry)
            tools.setdefault(tool.remote, tool)
        except UsageError as error:
            faults.append(clean(error.message, 300))
    return Listing(tuple(tools.values()), (*_too_many(len(wanted)), *_refused(faults)))


def known_parts(entry: Any) -> dict[str, Any] | None:
    """The parts of an entry that are used, if it can be used at all.

    What the SDK would refuse a whole list for, or check at length, is left out.
    """
    if _shape_fault(entry):
        return None
    description, hints = entry.get("description"), entry.get("annotations")
    return {
        "name": entry["name"],
        "inputSchema": {"type": "object", **entry["inputSchema"]},
        "description": _text(description) if isinstance(description, str) else "",
        "annotations": {
            "readOnlyHint": isinstance(hints, dict) and hints.get("readOnlyHint") is True
        },
    }


def _too_many(count: int) -> tuple[str, ...]:
    if count <= MOST_TOOLS:
        return ()
    return (
        f"has {count:,} tools, of which the first {MOST_TOOLS} are used; "
        "choose with `includeTools` in its entry",
    )


def _refused(faults: list[str]) -> tuple[str, ...]:
    if not faults:
        return ()
    if len(faults) == 1:
        return (f"has a tool that cannot be used: {faults[0]}",)
    return (f"has {len(faults)} tools that cannot be used; {faults[0]}",)


def _wanted(entry: Any, server: Server) -> bool:
    name = entry.get("name") if isinstance(entry, dict) else None
    return name not in server.exclude and (not server.include or name in server.include)


def _shape_fault(entry: Any) -> str:
    """Why an entry is no tool that can be used, before its schema is read; empty if it is one."""
    if not isinstance(entry, dict) or not isinstance(entry.get("name"), str) or not entry["name"]:
        return "it has no name"
    name, schema = clean(entry["name"], 80), entry.get("inputSchema")
    if not isinstance(schema, dict) or schema.get("type", "object") != "object":
        return f"the schema of `{name}` does not describe an object"
    if _depth_passes(schema, DEEPEST_SCHEMA):
        return f"the schema of `{name}` is nested more than {DEEPEST_SCHEMA} deep"
    size = len(json.dumps(schema))
    if size > LARGEST_SCHEMA:
        return f"the schema of `{name}` has {size:,} characters; the limit is {LARGEST_SCHEMA:,}"
    return ""


def _depth_passes(value: Any, most: int) -> bool:
    waiting = [(value, 1)]
    while waiting:
        part, depth = waiting.pop()
        if isinstance(part, dict | list):
            if depth > most:
                return True
            inner = part.values() if isinstance(part, dict) else part
            waiting += [(one, depth + 1) for one in inner]
    return False


def _definition(entry: Any) -> Definition:
    """Raises UsageError for an entry that is no tool that a model can be given."""
    from llmchat.tools.mcp.enforceable import enforceable

    if fault := _shape_fault(entry):
        raise UsageError(fault)
    try:
        parameters = enforceable({"properties": {}, **entry["inputSchema"]})
    except UsageError as error:
        raise UsageError(f"`{clean(entry['name'], 80)}`: {error.message}") from error
    return Definition(
        remote=entry["name"],
        description=entry["description"],
        parameters=parameters,
        claims_read_only=entry["annotations"]["readOnlyHint"],
    )


def _text(description: str) -> str:
    text = harmless(description[: 2 * LONGEST_DESCRIPTION].strip())
    if len(text) <= LONGEST_DESCRIPTION:
        return text
    return f"{text[:LONGEST_DESCRIPTION]} … (cut)"


def tool_name(group: str, remote: str, taken: Collection[str]) -> str:
    """`server_tool` in [a-zA-Z0-9_-]{1,64}, or the tool's own name if it begins with the server's.

    A name that is taken or too long ends in a hash.
    """
    prefix, own = _word(group), _word(remote)
    name = own if own == prefix or own.startswith(f"{prefix}_") else f"{prefix}_{own}"
    if len(name) <= _LONGEST_NAME and name not in taken:
        return name
    mark = hashlib.sha256(f"{group}\0{remote}".encode()).hexdigest()
    for length in range(6, len(mark) + 1):
        short = f"{name[: _LONGEST_NAME - length - 1]}_{mark[:length]}"
        if short not in taken:
            return short
    raise ValueError(f"no free name for {name}")


def _word(text: str) -> str:
    return re.sub(r"[^a-zA-Z0-9_-]+", "_", text).strip("_") or "x"


def clean(text: str, most: int) -> str:
    """A text of a server as a part of a line for the user."""
    line = " ".join(harmless(text).split())
    return line if len(line) <= most else f"{line[:most]}…"
