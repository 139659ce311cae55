"""Which JSON Schemas llama.cpp's converter writes down as they are meant.

Source: llama.cpp, common/json-schema-to-grammar.cpp. It takes the first keyword of a schema that it
has a rule for and leaves the others out without a word, so that only certain shapes are safe.
"""

import re
from typing import Any

from llmchat.errors import UsageError

# Keywords that say nothing about a value.
_NOTES = {
    "title", "description", "default", "examples", "$schema", "$comment", "deprecated", "readOnly",
    "writeOnly", "$defs", "definitions",
}  # fmt: skip
# The keywords that are enforced beside each type.
_BESIDE = {
    "object": {"properties", "required", "additionalProperties"},
    "array": {"items", "minItems", "maxItems"},
    "string": {"minLength", "maxLength"},
    "integer": {"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"},
    "number": set[str](),
    "boolean": set[str](),
    "null": set[str](),
}
_REFERENCE = re.compile(r"#/(\$defs|definitions)/[A-Za-z0-9]+")
_LARGEST = 2**53
_HINT = "the engine `transformers` and vLLM enforce it; or leave it out"


def check_converted(schema: Any) -> None:
    """Raise UsageError that names the first keyword which llama.cpp would not enforce."""
    _check(schema)
    for definitions in ("$defs", "definitions"):
        for each in schema.get(definitions, {}).values():
            _check(each)


def _check(schema: Any) -> None:
    if not isinstance(schema, dict):
        raise _refused(f"the schema `{str(schema).lower()}`")
    used = schema.keys() - _NOTES
    if used - {"type"} in ({"enum"}, {"const"}):
        return _check_values(schema)
    for key in ("$ref", "anyOf"):
        if key in used:
            _only(used, {key}, f"beside `{key}`")
            return _check_reference(schema["$ref"]) if key == "$ref" else _all(schema["anyOf"])
    kinds = schema.get("type", [])
    kinds = kinds if isinstance(kinds, list) else [kinds]
    if unknown := [kind for kind in kinds if kind not in _BESIDE]:
        raise _refused(f"the type `{unknown[0]}`")
    known = [_BESIDE[kind] for kind in kinds]
    _only(used, {"type"}.union(*known), f"for the type {' or '.join(map(str, kinds)) or 'any'}")
    _check_parts(schema)


def _check_parts(schema: dict[str, Any]) -> None:
    """The keywords of a type, which are enforced in some combinations."""
    _check_object(schema)
    if "items" in schema:
        _check(schema["items"])
    elif schema.keys() & {"minItems", "maxItems"}:
        raise _refused("`minItems` and `maxItems` without `items`")
    bounds = [schema[key] for key in _BESIDE["integer"] if key in schema]
    if any(not isinstance(bound, int) or abs(bound) > _LARGEST for bound in bounds):
        raise _refused("a bound that is not a whole number below 2^53")
    for plain, exclusive in (("minimum", "exclusiveMinimum"), ("maximum", "exclusiveMaximum")):
        if plain in schema and exclusive in schema:
            raise _refused(f"`{exclusive}` beside `{plain}`")
    highest = schema.get("maximum", schema.get("exclusiveMaximum", 0))
    if highest < 0 and not schema.keys() & {"minimum", "exclusiveMinimum"}:
        raise _refused("a negative `maximum` without `minimum`")


def _check_object(schema: dict[str, Any]) -> None:
    properties, other = schema.get("properties", {}), schema.get("additionalProperties", False)
    if missing := [name for name in schema.get("required", []) if name not in properties]:
        raise _refused(f"`required` of `{missing[0]}`, which is not in `properties`")
    if properties and other is not False:
        raise _refused("`additionalProperties` beside `properties`")
    if isinstance(other, dict):
        _check(other)
    _all(list(properties.values()))


def _check_values(schema: dict[str, Any]) -> None:
    """`enum` and `const`: the type beside them is left out."""
    if "type" in schema:
        raise _refused("`type` beside `enum` or `const`")


def _check_reference(name: Any) -> None:
    if not isinstance(name, str) or not _REFERENCE.fullmatch(name):
        raise _refused(f"`$ref` to `{name}`")


def _all(schemas: Any) -> None:
    for each in schemas:
        _check(each)


def _only(used: set[str], allowed: set[str], where: str) -> None:
    """Raise UsageError for the first keyword that is used and not allowed."""
    if others := sorted(used - allowed):
        raise _refused(f"`{others[0]}` {where}")


def _refused(what: str) -> UsageError:
    return UsageError(f"llama.cpp does not enforce {what} in a JSON Schema", _HINT)
