"""A server's schema as the grammar of a call can enforce it.

A keyword that no grammar enforces is an error in a schema that the user writes. A server's schema
is not theirs to change, and the server checks its arguments itself: so it loses what is too much.
"""

import json
from typing import Any

from llmchat.engines.guide import schema_checks
from llmchat.engines.guide.checking import check
from llmchat.errors import UsageError
from llmchat.structure import Structure
from llmchat.structure.subschemas import map_schemas
from llmchat.tool_syntax.schemas import properties

Schema = dict[str, Any]

_ENFORCED = {
    "$ref", "$defs", "definitions", "allOf", "anyOf", "oneOf", "const", "enum", "type",
    "properties", "required", "additionalProperties", "patternProperties",
    "items", "prefixItems", "additionalItems", "minItems", "maxItems",
    "minLength", "maxLength", "pattern", "format",
    "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf",
    "title", "description", "default", "examples",
}  # fmt: skip
_FORMATS = {
    "date-time", "time", "date", "duration", "email", "hostname", "ipv4", "ipv6", "uuid", "uri",
}  # fmt: skip


def enforceable(schema: Schema) -> Schema:
    """The schema, with as few of its constraints left out as possible.

    Raises UsageError if what is left is no schema that can be enforced.
    """
    for change in (_unchanged, _without_keywords, _without_patterns):
        found: Schema = map_schemas(schema, change)
        try:
            _check(found)
        except UsageError as error:
            fault = error
        else:
            return found
    raise fault


def _check(schema: Schema) -> None:
    """Some dialects of calls write each argument by itself, so each must have an end."""
    check(Structure("schema", json.dumps(schema)))
    for inner, _ in properties(schema).values():
        if fault := schema_checks.fault(inner):
            raise UsageError(fault)


def _unchanged(schema: Schema) -> Schema:
    return schema


def _without_keywords(schema: Schema) -> Schema:
    """Only what some grammar enforces. Options may overlap."""
    kept = {key: value for key, value in schema.items() if key in _ENFORCED}
    if kept.get("format") not in _FORMATS:
        kept.pop("format", None)
    if "oneOf" in kept:
        kept.setdefault("anyOf", kept.pop("oneOf"))
        kept.pop("oneOf", None)
    return kept


def _without_patterns(schema: Schema) -> Schema:
    """No regular expressions either: some are too large, or look around."""
    kept = _without_keywords(schema)
    kept.pop("pattern", None)
    if kept.pop("patternProperties", None) is not None:
        kept.pop("additionalProperties", None)
    return kept
