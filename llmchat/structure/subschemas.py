"""The schemas within a JSON Schema, found where a keyword holds one."""

from collections.abc import Callable, Iterator
from typing import Any

_ONE = ("items", "additionalProperties", "additionalItems")
_LISTS = ("anyOf", "oneOf", "allOf", "prefixItems", "items")
_MAPS = ("properties", "patternProperties", "$defs", "definitions")


def subschemas(schema: Any) -> Iterator[dict[str, Any]]:
    """The schema and all within it. `true` and `false` are left out."""
    found: list[dict[str, Any]] = []

    def keep(part: dict[str, Any]) -> dict[str, Any]:
        found.append(part)
        return part

    map_schemas(schema, keep)
    yield from found


def map_schemas(schema: Any, change: Callable[[dict[str, Any]], dict[str, Any]]) -> Any:
    """A copy in which each schema is changed, the inner ones first."""
    if not isinstance(schema, dict):
        return schema
    copy = dict(schema)
    for key, value in schema.items():
        if key in _MAPS and isinstance(value, dict):
            copy[key] = {name: map_schemas(part, change) for name, part in value.items()}
        elif key in _LISTS and isinstance(value, list):
            copy[key] = [map_schemas(part, change) for part in value]
        elif key in _ONE:
            copy[key] = map_schemas(value, change)
    return change(copy)
