"""Reads one block of calls at a position of a text, in a given dialect."""

import re
from collections.abc import Mapping
from typing import Any

from llmchat.tool_syntax.cursor import Cursor, Incomplete, Invalid
from llmchat.tool_syntax.dialect import Dialect
from llmchat.tool_syntax.notations import READERS, as_arguments
from llmchat.tool_syntax.schemas import Schema

NamedArguments = tuple[str, dict[str, Any]]
Schemas = Mapping[str, Schema]
# Between two objects, the second of which is there.
_JSON_SEPARATOR = re.compile(r"\s*[;,]?\s*(?=[{\[])")
_ARGUMENT_KEYS = ("arguments", "parameters")


def read_block(cursor: Cursor, dialect: Dialect, known: Schemas) -> list[NamedArguments]:
    """The calls between the opening and the closing mark.

    known: the schema of each tool's arguments, by name. Raises Invalid, or Incomplete.
    """
    cursor.expect(dialect.open)
    if dialect.key:
        return _read_objects(cursor, dialect, known)
    calls = [_read_call(cursor, dialect, known)]
    while dialect.several and not _closes(cursor, dialect.close):
        cursor.expect(dialect.separator)
        calls.append(_read_call(cursor, dialect, known))
    return calls


def _closes(cursor: Cursor, close: str) -> bool:
    """Read the closing mark. It may be missing at the end, where it is often a stop token."""
    cursor.skip_space()
    if cursor.at_end:
        if cursor.final:
            return True
        raise Incomplete
    return cursor.accept(close)


def _read_call(cursor: Cursor, dialect: Dialect, known: Schemas) -> NamedArguments:
    cursor.expect(_beginning(cursor, dialect))
    name = _read_name(cursor, dialect, known)
    arguments = READERS[dialect.notation](cursor, dialect, known[name])
    if dialect.after and not _closes(cursor, dialect.after):
        raise Invalid
    return name, arguments


def _beginning(cursor: Cursor, dialect: Dialect) -> str:
    """The text that begins the call here: the usual one, or another that models write."""
    if dialect.at_start and not cursor.text.startswith(dialect.before, cursor.position):
        return ""
    aliases = (one for one in dialect.aliases if cursor.text.startswith(one, cursor.position))
    return next(aliases, dialect.before)


def _read_name(cursor: Cursor, dialect: Dialect, known: Schemas) -> str:
    cursor.skip_space()
    between = dialect.between_pattern or _flexible(dialect.between)
    names = "|".join(map(re.escape, sorted(known, key=len, reverse=True)))
    return cursor.match(re.compile(rf"({names}){between}"))[1]


def _flexible(literal: str) -> str:
    """A pattern for a text, with any or no white space where it has some."""
    return r"\s*" + r"\s*".join(map(re.escape, literal.split()))


def _read_objects(cursor: Cursor, dialect: Dialect, known: Schemas) -> list[NamedArguments]:
    """JSON objects, in sequence or in a list, up to the closing mark or the end of the JSON."""
    calls = calls_of(cursor.json_value(), known)
    while not (_closes(cursor, dialect.close) if dialect.close else _ends(cursor, dialect)):
        separator = _JSON_SEPARATOR.match(cursor.text, cursor.position)
        cursor.position = separator.end() if separator else cursor.position
        calls += calls_of(cursor.json_value(), known)
    return calls


def _ends(cursor: Cursor, dialect: Dialect) -> bool:
    """Whether no further object follows, where no mark closes them."""
    if dialect.array:
        return True
    if _JSON_SEPARATOR.match(cursor.text, cursor.position):
        return False
    if cursor.final or cursor.text[cursor.position :].strip(" \n;,"):
        return True
    raise Incomplete


def calls_of(value: Any, known: Schemas) -> list[NamedArguments]:
    """The calls that a JSON value stands for: an object, or a list of them. Raises Invalid."""
    values = value if isinstance(value, list) else [value]
    if not values:
        raise Invalid
    return [_call_of(one, known) for one in values]


def _call_of(value: Any, known: Schemas) -> NamedArguments:
    if isinstance(value, dict) and isinstance(value.get("function"), dict):
        value = value["function"]
    if not isinstance(value, dict):
        raise Invalid
    name = value.get("name", value.get("tool_name"))
    if not isinstance(name, str) or name not in known:
        raise Invalid
    given = (value[key] for key in _ARGUMENT_KEYS if key in value)
    return name, as_arguments(next(given, {}))
