"""The JSON Schemas of tools: what their arguments may be, and the values that a text stands for."""

import ast
import json
from collections.abc import Mapping
from typing import Any

from llmchat.structure.subschemas import map_schemas

Schema = dict[str, Any]
_DEFINITIONS = ("$defs", "definitions")
_KINDS: dict[str, type | tuple[type, ...]] = {
    "string": str,
    "integer": int,
    "number": (int, float),
    "boolean": bool,
    "null": type(None),
    "object": dict,
    "array": list,
}


def parameters(tool: Mapping[str, Any]) -> Schema:
    """The schema of a tool's arguments, as far as it binds them.

    A tool that names its arguments takes no others. `propertyNames`, which generators of schemas
    write for every map and no grammar here enforces, is left out.
    """
    schema = dict(map_schemas(tool["function"].get("parameters") or {}, _without_names))
    schema.setdefault("type", "object")
    opened = {"additionalProperties", "patternProperties", "$ref", "allOf", "anyOf", "oneOf"}
    if not opened & set(schema):
        schema.setdefault("properties", {})
        schema["additionalProperties"] = False
    return schema


def _without_names(schema: Schema) -> Schema:
    return {key: value for key, value in schema.items() if key != "propertyNames"}


def call_object(name: str, key: str, schema: Schema) -> Schema:
    """The schema of a JSON object that is a call: {"name": name, key: arguments}."""
    return {
        "type": "object",
        "properties": {"name": {"const": name}, key: _moved(schema, f"#/properties/{key}")},
        "required": ["name", key],
        "additionalProperties": False,
    }


def _moved(schema: Any, place: str) -> Any:
    """A schema whose references are right for another place in a document."""
    if isinstance(schema, list):
        return [_moved(one, place) for one in schema]
    if not isinstance(schema, dict):
        return schema
    moved = {name: _moved(inner, place) for name, inner in schema.items()}
    if isinstance(target := schema.get("$ref"), str) and target.startswith("#"):
        moved["$ref"] = place + target.removeprefix("#")
    return moved


def properties(schema: Schema) -> dict[str, tuple[Schema, bool]]:
    """Each named argument with its schema, which knows the tool's definitions, and whether it is
    required."""
    shared = {name: schema[name] for name in _DEFINITIONS if name in schema}
    required = schema.get("required", ())
    return {
        name: (({**shared, **inner} if isinstance(inner, dict) else {}), name in required)
        for name, inner in schema.get("properties", {}).items()
    }


def resolved(schema: Any, root: Schema) -> Schema:
    """A schema behind its references within the root. A circle ends as a schema for anything."""
    seen = set()
    while isinstance(schema, dict) and isinstance(target := schema.get("$ref"), str):
        if target in seen or not target.startswith("#"):
            return {}
        seen.add(target)
        schema = _pointed(root, target)
    return schema if isinstance(schema, dict) else {}


def _pointed(root: Any, pointer: str) -> Any:
    for part in pointer.removeprefix("#").strip("/").split("/"):
        if part:
            name = part.replace("~1", "/").replace("~0", "~")
            root = root.get(name, {}) if isinstance(root, dict) else {}
    return root


def kinds(schema: Any, root: Schema) -> frozenset[str]:
    """The JSON types that a schema allows; empty if it allows all."""
    schema = resolved(schema, root)
    if "enum" in schema or "const" in schema:
        return frozenset(_kind_of(value) for value in schema.get("enum", [schema.get("const")]))
    declared = schema.get("type", [])
    found = {declared} if isinstance(declared, str) else set(declared)
    for choice in (*schema.get("anyOf", ()), *schema.get("oneOf", ())):
        inner = kinds(choice, root)
        if not inner:
            return frozenset()
        found |= inner
    return frozenset(found)


def _kind_of(value: Any) -> str:
    fitting = (name for name, kind in _KINDS.items() if isinstance(value, kind))
    return "boolean" if isinstance(value, bool) else next(fitting, "null")


def typed(text: str, schema: Any, root: Schema) -> Any:
    """The value of a bare text under a schema.

    A text that is allowed to be a string and is no other allowed value stays one.
    """
    allowed = kinds(schema, root)
    if allowed == {"string"}:
        return text
    value = _literal(text)
    if value is not _NOTHING and fits(value, allowed):
        return float(value) if allowed == {"number"} and isinstance(value, float) else value
    return text


def fits(value: Any, allowed: frozenset[str]) -> bool:
    """Whether a value is of one of the types; any is if there are none."""
    kind = _kind_of(value)
    whole = isinstance(value, int | float) and not isinstance(value, bool) and value == int(value)
    return (
        not allowed
        or kind in allowed
        or (kind in ("integer", "number") and "number" in allowed)
        or ("integer" in allowed and kind == "number" and whole)
    )


_NOTHING = object()
_PYTHON = {"True": True, "False": False, "None": None}


def _literal(text: str) -> Any:
    """The value that a text spells in JSON, or else in Python; _NOTHING if in neither."""
    text = text.strip()
    try:
        return json.loads(text, parse_constant=_refuse)
    except (ValueError, RecursionError):
        pass
    if text in _PYTHON:
        return _PYTHON[text]
    return python_literal(text) if text[:1] in "[{(" else _NOTHING


def python_literal(text: str) -> Any:
    """The value of a Python literal, in which JSON's true, false and null are names too."""
    try:
        tree = ast.parse(text.strip(), mode="eval")
        value = ast.literal_eval(_NamesAsConstants().visit(tree))
        json.dumps(value, allow_nan=False)
    except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
        return _NOTHING
    return value


def is_nothing(value: Any) -> bool:
    """Whether `python_literal` found no value."""
    return value is _NOTHING


class _NamesAsConstants(ast.NodeTransformer):
    def visit_Name(self, node: ast.Name) -> ast.AST:
        constants = {"true": True, "false": False, "null": None}
        return ast.Constant(constants[node.id]) if node.id in constants else node


def _refuse(name: str) -> None:
    raise ValueError(f"{name} is not JSON")
