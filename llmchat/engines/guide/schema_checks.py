"""What a JSON Schema requires that llguidance accepts and does not enforce."""

import re
from typing import Any

from llmchat.structure.subschemas import subschemas

Schema = dict[str, Any] | bool


def fault(schema: Schema) -> str:
    """The first requirement that cannot be enforced, as a clause; empty if there is none."""
    if not isinstance(schema, dict):
        return ""
    for part in subschemas(schema):
        if has_countless_names(part):
            return "`minProperties` above the number of required properties is not enforced"
    if not _ends(schema, _ending_references(schema)):
        return "its values never end, because each one requires another (`$ref` in a circle)"
    return ""


def has_countless_names(schema: dict[str, Any]) -> bool:
    """Whether names must be counted that the grammar lets repeat: a name written twice counts once.

    Names listed in `properties` never repeat.
    """
    least, required = schema.get("minProperties"), schema.get("required", [])
    listed = len(required) if isinstance(required, list) else 0
    return isinstance(least, int) and least > listed + 1


def _ending_references(root: dict[str, Any]) -> frozenset[str]:
    """The local references whose value can end, by iteration up to a fixed point."""
    names = {part["$ref"] for part in subschemas(root) if isinstance(part.get("$ref"), str)}
    targets = {name: found for name in names if (found := _resolve(root, name)) is not None}
    ending = names - targets.keys()
    while news := {
        name
        for name, target in targets.items()
        if name not in ending and _ends(target, frozenset(ending))
    }:
        ending |= news
    return frozenset(ending)


def _resolve(root: dict[str, Any], name: str) -> Schema | None:
    """The schema that `#/a/b` points to; None for another reference, which counts as ending."""
    if not re.fullmatch(r"#(/.*)?", name, re.DOTALL):
        return None
    place: Any = root
    for step in name.split("/")[1:]:
        step = step.replace("~1", "/").replace("~0", "~")
        if isinstance(place, list) and step.isdecimal() and int(step) < len(place):
            place = place[int(step)]
        elif isinstance(place, dict) and step in place:
            place = place[step]
        else:
            return None
    return place if isinstance(place, dict | bool) else None


def _ends(schema: Any, ending: frozenset[str]) -> bool:
    """Whether a finite value of a schema exists, if the references in `ending` have one."""
    if not isinstance(schema, dict):
        return schema is not False
    if "const" in schema or "enum" in schema:
        return True
    if isinstance(schema.get("$ref"), str) and schema["$ref"] not in ending:
        return False
    if not all(_ends(part, ending) for part in _parts(schema, "allOf")):
        return False
    for key in ("anyOf", "oneOf"):
        if (parts := _parts(schema, key)) and not any(_ends(part, ending) for part in parts):
            return False
    return _has_ending_type(schema, ending)


def _has_ending_type(schema: dict[str, Any], ending: frozenset[str]) -> bool:
    kinds = schema.get("type", ["null"])
    kinds = kinds if isinstance(kinds, list) else [kinds]
    if not set(kinds) <= {"object", "array"}:
        return True
    return any(
        _object_ends(schema, ending) if kind == "object" else _array_ends(schema, ending)
        for kind in kinds
    )


def _object_ends(schema: dict[str, Any], ending: frozenset[str]) -> bool:
    properties = schema.get("properties", {})
    other = schema.get("additionalProperties", True)
    return all(_ends(properties.get(name, other), ending) for name in schema.get("required", []))


def _array_ends(schema: dict[str, Any], ending: frozenset[str]) -> bool:
    items = schema.get("items", True)
    first = schema.get("prefixItems", items if isinstance(items, list) else [])
    rest = schema.get("additionalItems", True) if isinstance(items, list) else items
    least = schema.get("minItems", 0)
    needed = [*first[:least], *([rest] if least > len(first) else [])]
    return all(_ends(item, ending) for item in needed)


def _parts(schema: dict[str, Any], key: str) -> list[Any]:
    parts = schema.get(key, [])
    return parts if isinstance(parts, list) else []
