"""What an answer must look like, as a value. Engines enforce it while they choose tokens.

`from_…` make it of a schema, a pattern, choices or a grammar, and refuse what is malformed.
`structure.arguments` reads what a user writes on a command line.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_args

from msgspec import Struct

from llmchat.errors import UsageError
from llmchat.parse_guard import reason

Kind = Literal["json", "schema", "regex", "choice", "grammar"]
KINDS: tuple[Kind, ...] = get_args(Kind)


class Structure(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """The form of an answer.

    kind and source: `json` any JSON object, no source; `schema` a JSON Schema as JSON text; `regex`
    a regular expression for the whole answer; `choice` a JSON list of texts, one of which is the
    answer; `grammar` a Lark grammar as llguidance reads it.
    """

    kind: Kind
    """Kind of form."""
    source: str = ""
    """Schema, expression, list of texts or grammar."""

    @property
    def is_json(self) -> bool:
        """Whether the answer is JSON text."""
        return self.kind in ("json", "schema")

    @property
    def choices(self) -> list[str]:
        """The texts of a choice."""
        choices: list[str] = json.loads(self.source) if self.kind == "choice" else []
        return choices


ANY_JSON = Structure("json")


def from_schema(schema: str | bool | Mapping[str, Any]) -> Structure:
    """The structure of a JSON Schema, parsed or as text. Raises UsageError if it is not one."""
    value = parsed_json(schema, "the JSON Schema") if isinstance(schema, str) else schema
    if not isinstance(value, Mapping | bool):
        raise UsageError(
            f"a JSON Schema is an object, not `{_echo(json.dumps(value))}`",
            'for example {"type": "object", "properties": {"name": {"type": "string"}}}',
        )
    try:
        text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
        text.encode()
    except (ValueError, TypeError, RecursionError) as error:
        raise UsageError(f"the JSON Schema cannot be used: {reason(error)}") from error
    return Structure("schema", text)


def from_regex(pattern: str) -> Structure:
    """The structure of a regular expression that describes the whole answer."""
    if not pattern:
        raise UsageError("the regular expression is empty")
    return Structure("regex", pattern)


def from_choices(choices: Sequence[str]) -> Structure:
    """The structure of texts, one of which is the answer. Raises UsageError for none, or a twin."""
    if not choices:
        raise UsageError("there is no choice", "give two texts or more")
    if not all(isinstance(choice, str) and choice for choice in choices):
        raise UsageError("a choice is empty", "each choice is a text of one character or more")
    if twin := next((one for n, one in enumerate(choices) if one in choices[:n]), ""):
        raise UsageError(f"the choice `{_echo(twin)}` is given twice")
    return Structure("choice", json.dumps(list(choices), ensure_ascii=False))


def from_grammar(grammar: str) -> Structure:
    """The structure of a grammar in Lark's syntax, whose first rule is `start`."""
    if not grammar.strip():
        raise UsageError("the grammar is empty", 'for example `start: "yes" | "no"`')
    return Structure("grammar", grammar)


def checked(structure: Structure) -> Structure:
    """A structure that was written as kind and source. Raises UsageError if it is malformed."""
    if structure.kind == "json":
        return ANY_JSON
    if structure.kind == "choice":
        choices = parsed_json(structure.source, "the list of choices")
        return from_choices(choices if isinstance(choices, list) else [])
    make = {"schema": from_schema, "regex": from_regex, "grammar": from_grammar}
    return make[structure.kind](structure.source)


def parsed_json(text: str, what: str) -> Any:
    """The value of a JSON text. Raises UsageError with the place of the first error."""
    try:
        return json.loads(text, parse_constant=_refuse_constant)
    except json.JSONDecodeError as error:
        place = f"line {error.lineno}, column {error.colno}"
        raise UsageError(f"{what} is not valid JSON: {error.msg} ({place})") from error
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{what} is not valid JSON: {reason(error)}") from error


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not a JSON number")


def in_words(structure: Structure) -> str:
    """A structure in one short line: `schema: name, age`, `choice: yes, no`."""
    if structure.kind == "json":
        return "any JSON object"
    if structure.kind == "schema":
        text = _schema_in_words(json.loads(structure.source))
    elif structure.kind == "choice":
        text = ", ".join(structure.choices)
    else:
        text = structure.source
    return f"{structure.kind}: {_echo(text)}"


def _schema_in_words(schema: Any) -> str:
    properties = schema.get("properties") if isinstance(schema, dict) else None
    if isinstance(properties, dict) and properties:
        return ", ".join(properties)
    return json.dumps(schema, ensure_ascii=False)


_LONGEST_ECHO = 60


def _echo(text: str) -> str:
    """A text on one line, shortened."""
    line = " ".join("".join(char if char.isprintable() else " " for char in text).split())
    return line if len(line) <= _LONGEST_ECHO else f"{line[: _LONGEST_ECHO - 1]}…"
