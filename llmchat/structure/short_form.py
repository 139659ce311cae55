"""The short form of a JSON Schema, as simonw/llm spells it: `name, age int, tags [str]: words`.

Fields are separated by commas, or by line ends. A field is a name, a type (str if none is given)
and, after a colon, a description. Every field is required, and there are no others.
"""

from typing import Any

from llmchat.errors import UsageError, any_of, did_you_mean

_TYPES = {"str": "string", "int": "integer", "float": "number", "bool": "boolean"}


def schema_of_short_form(text: str) -> dict[str, Any]:
    """The JSON Schema of a short form. Raises UsageError that names the invalid field."""
    lines = text.splitlines() if "\n" in text else text.split(",")
    properties: dict[str, Any] = {}
    for line in filter(None, map(str.strip, lines)):
        name, schema = _field(line)
        if name in properties:
            raise UsageError(f"the field `{name}` is given twice")
        properties[name] = schema
    if not properties:
        raise UsageError("the schema has no fields", _EXAMPLE)
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


_EXAMPLE = "for example `name, age int, tags [str]`"


def _field(line: str) -> tuple[str, dict[str, Any]]:
    declared, _, description = line.partition(":")
    words = declared.split()
    if not words:
        raise UsageError(f"`{line}` has no name", _EXAMPLE)
    if len(words) > 2:
        raise UsageError(f"`{declared.strip()}` is not a name and a type", _EXAMPLE)
    schema = _type(words[1] if len(words) == 2 else "str", words[0])
    return words[0], schema | ({"description": description.strip()} if description.strip() else {})


def _type(word: str, name: str) -> dict[str, Any]:
    if word.startswith("[") and word.endswith("]") and len(word) > 2:
        return {"type": "array", "items": _type(word[1:-1].strip(), name)}
    if word not in _TYPES:
        types = any_of([*_TYPES, "a list such as [str]"])
        raise UsageError(
            f"the field `{name}` has the unknown type `{word}`",
            did_you_mean(word, tuple(_TYPES)) or f"a type is {types}",
        )
    return {"type": _TYPES[word]}
