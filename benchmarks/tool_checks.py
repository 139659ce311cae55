"""The tasks of `tool_tasks.toml`, and the marks that an answer earns. Without model or network."""

import json
import re
import tomllib
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

FILE = Path(__file__).with_name("tool_tasks.toml")
# The groups of the product's own tools, whose definitions the tasks use.
GROUPS = ("clock", "calculator", "files", "web", "python")
# A call that was left in the text: its mark, or JSON of its form.
_MARK = re.compile(r"</?tool_call>")
_JSON_CALL = re.compile(r'"name"\s*:\s*"([^"]*)"\s*,\s*"(?:arguments|parameters)"\s*:')
_TOLERANCE = 1e-3

Definition = dict[str, Any]


class Task(Struct, frozen=True, forbid_unknown_fields=True):
    """A question. tool: what it needs, empty for no call. arguments: see `tool_tasks.toml`."""

    id: str
    ask: str
    tool: str = ""
    arguments: dict[str, Any] = {}


class Answer(Struct, frozen=True):
    """What a server returned. calls: of each the tool's name, and the arguments as text."""

    text: str
    calls: tuple[tuple[str, str], ...] = ()
    finish: str = "stop"


class Marks(Struct, frozen=True):
    """tool: the right tool was called, once; where none is needed, the answer is in words.
    arguments: they are right too. valid: calls that parse and keep their tool's schema. malformed:
    those that do not, and a call of an offered tool that was left in the text, unless the limit of
    tokens cut it. invented: the text spells a call of a tool that does not exist.
    """

    tool: bool
    arguments: bool
    valid: int
    malformed: int
    invented: bool = False


def tasks() -> list[Task]:
    return msgspec.convert(_file()["tasks"], list[Task])


def definitions() -> list[Definition]:
    """In OpenAI's form: the product's own tools, then those of the file."""
    own = {tool.name: tool for tool in _own_tools()}
    ours = [_definition(tool.name, tool.description, tool.parameters) for tool in own.values()]
    return ours + [_definition(**tool) for tool in _file()["tools"] if tool["name"] not in own]


def _file() -> dict[str, Any]:
    return tomllib.loads(FILE.read_text("utf-8"))


def _own_tools() -> Iterable[Any]:
    from llmchat.settings import World
    from llmchat.tools import ToolSettings
    from llmchat.tools.registry import groups, tools_of

    available = [group for group in GROUPS if group in groups()]
    return tools_of(available, ToolSettings(World.real()))


def _definition(name: str, description: str, parameters: dict[str, Any]) -> Definition:
    function = {"name": name, "description": description, "parameters": parameters}
    return {"type": "function", "function": function}


def marks(task: Task, answer: Answer, offered: Sequence[Definition]) -> Marks:
    faults = [call_fault(name, text, offered) for name, text in answer.calls]
    broken = sum(map(bool, faults))
    left, invented = _calls_in(answer.text, {tool["function"]["name"] for tool in offered})
    counts = (len(faults) - broken, broken + (left and answer.finish != "length"), invented)
    if not task.tool:
        in_words = not (answer.calls or left or invented)
        return Marks(in_words, in_words, *counts)
    tool = [name for name, _ in answer.calls] == [task.tool]
    arguments = tool and not faults[0] and _fits_all(json.loads(answer.calls[0][1]), task.arguments)
    return Marks(tool, arguments, *counts)


def _calls_in(text: str, names: set[str]) -> tuple[bool, bool]:
    """Whether a text spells a call of an offered tool, and of one that does not exist."""
    found = {match[1] for match in _JSON_CALL.finditer(text)}
    return bool(found & names or (_MARK.search(text) and not found)), bool(found - names)


def call_fault(name: str, arguments: str, offered: Sequence[Definition]) -> str:
    """Why a call is malformed; empty if it parses and keeps its tool's schema."""
    import jsonschema_rs

    schemas = {tool["function"]["name"]: tool["function"]["parameters"] for tool in offered}
    if name not in schemas:
        return f"there is no tool {name}"
    try:
        value = json.loads(arguments)
    except ValueError as error:
        return f"not JSON: {error}"
    validator = jsonschema_rs.validator_for(schemas[name], validate_formats=True)
    return next((error.message for error in validator.iter_errors(value)), "")


def _fits_all(given: Any, expected: dict[str, Any]) -> bool:
    """Whether an object has all expected values and no others. Empty values count as absent."""
    if not isinstance(given, dict):
        return False
    given = {name: value for name, value in given.items() if value not in ("", [], {}, None)}
    if given.keys() - expected.keys():
        return False
    return all(
        fits(given[name], check) if name in given else _may_be_absent(check)
        for name, check in expected.items()
    )


def _may_be_absent(check: Any) -> bool:
    return isinstance(check, list) and "" in check


def fits(value: Any, check: Any) -> bool:
    """Whether a value passes a check of a task."""
    if isinstance(check, list):
        return any(_same(value, accepted) for accepted in check)
    ((kind, wanted),) = check.items()
    return bool(_CHECKS[kind](value, wanted))


def _same(value: Any, accepted: Any) -> bool:
    """Equal; texts but for case, white space and a full stop, numbers of any type."""
    if isinstance(value, str) and isinstance(accepted, str):
        return _normal(value) == _normal(accepted)
    # True equals 1 in Python.
    return isinstance(value, bool) == isinstance(accepted, bool) and bool(value == accepted)


def _normal(text: str) -> str:
    return " ".join(text.split()).rstrip(".").casefold() or text.strip()


def _contains(value: Any, words: list[str]) -> bool:
    return isinstance(value, str) and all(_normal(word) in _normal(value) for word in words)


def _equals(value: Any, wanted: float) -> bool:
    """Whether an expression has this result, in any unit, for the calculator."""
    from llmchat.tools import ToolError
    from llmchat.tools.calculator import calculate, spelled

    try:
        result = spelled(calculate(str(value)))
    except ToolError:
        return False
    number = re.match(r"[≈=\s]*(-?[\d,]*\.?\d+)", result)
    found = float(number[1].replace(",", "")) if number else None
    return found is not None and abs(found - wanted) <= _TOLERANCE * abs(wanted)


def _has_items(value: Any, items: list[Any]) -> bool:
    if not isinstance(value, list) or len(value) != len(items):
        return False
    return Counter(_normal(str(one)) for one in value) == Counter(_normal(one) for one in items)


_CHECKS = {
    "contains": _contains,
    "equals": _equals,
    "items": _has_items,
    "fields": _fits_all,
}
