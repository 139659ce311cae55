"""Check the arguments of a call against the tool's JSON Schema before it runs.

A schema may come from a stranger's server: no reference is fetched, patterns cannot backtrack
without end, and what cannot be compiled is an error of one line.
"""

from typing import Any

from llmchat.errors import shortened
from llmchat.tools import Tool


def fault(tool: Tool, arguments: Any) -> str:
    """Why a tool cannot be called with these arguments, in one line; empty if it can."""
    import jsonschema_rs

    if not isinstance(arguments, dict):
        return f"the arguments of {tool.name} must be an object"
    try:
        validator = jsonschema_rs.validator_for(tool.parameters, offline=True)
    except Exception as error:
        return f"the parameters of {tool.name} are not a valid JSON Schema: {_first(error)}"
    try:
        found = next(iter(validator.iter_errors(arguments)), None)
    except ValueError as error:
        return f"the arguments of {tool.name} are not JSON: {_first(error)}"
    return f"invalid arguments for {tool.name}: {_explained(found)}" if found else ""


def _explained(error: Any) -> str:
    """`path: 3 is not of type "string"`."""
    where = ".".join(str(part) for part in error.instance_path)
    return f"{where}: {_first(error)}" if where else _first(error)


def _first(error: Exception) -> str:
    text: str = getattr(error, "message", "") or str(error)
    lines = text.splitlines()
    return shortened(lines[0]) if lines else type(error).__name__
