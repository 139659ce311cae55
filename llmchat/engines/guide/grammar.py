"""A structure as a grammar of llguidance."""

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from llmchat import tool_syntax
from llmchat.engines.guide.exact_schema import exact
from llmchat.structure import Structure

# JSON on one line, as Python's json.dumps and most training data write it. Free white space would
# leave little to force, and small models fall into endless spaces. No option of a schema's own
# `x-guidance` may loosen it.
JSON_STYLE: Any = {
    "whitespace_flexible": False,
    "whitespace_pattern": None,
    "item_separator": ", ",
    "key_separator": ": ",
    "coerce_one_of": False,
    "lenient": False,
    # Without \u: a name that is spelt with it would not be recognised as that of a property.
    "json_allowed_escapes": 'bfnrt\\"',
}

_INLINE_SCHEMA = re.compile(r"%json\s*(?=\{)")


def grammar_of(structure: Structure, special: Mapping[str, int] | None = None) -> str:
    """The grammar, unchecked. special: ids of special tokens, by which a grammar for calls of tools
    can name its marks. Raises ValueError for JSON that is none.
    """
    from llguidance import LLMatcher

    if structure.kind == "json":
        return LLMatcher.grammar_from_json_schema({"type": "object"}, overrides=JSON_STYLE)
    if structure.kind == "schema":
        return LLMatcher.grammar_from_json_schema(
            exact(as_object(json.loads(structure.source))), overrides=JSON_STYLE
        )
    if structure.kind == "regex":
        return LLMatcher.grammar_from_regex(structure.source)
    if structure.kind == "choice":
        options = " | ".join(json.dumps(text, ensure_ascii=False) for text in structure.choices)
        return LLMatcher.grammar_from_lark(f"start: {options}")
    lark = _with_exact_schemas(structure.source)
    return LLMatcher.grammar_from_lark(tool_syntax.resolve(lark, special or {}))


def _with_exact_schemas(lark: str) -> str:
    """A grammar whose schemas are exact. White space within their JSON stays as they have it."""
    pieces, place = [], 0
    for match in _INLINE_SCHEMA.finditer(lark):
        schema, end = json.JSONDecoder().raw_decode(lark, match.end())
        style = {"json_allowed_escapes": JSON_STYLE["json_allowed_escapes"]}
        own = schema.get("x-guidance")
        style = (own if isinstance(own, dict) else {}) | style
        pieces += [lark[place : match.end()], json.dumps(exact(schema) | {"x-guidance": style})]
        place = end
    return "".join([*pieces, lark[place:]])


def as_object(schema: Any) -> dict[str, Any]:
    """A schema in the form of an object: `true` allows every value, `false` none."""
    if isinstance(schema, dict):
        return schema
    return {} if schema is True else {"anyOf": []}


def schemas_in(structure: Structure) -> Iterator[Any]:
    """The JSON Schemas of a structure, also those within a grammar. Raises ValueError."""
    if structure.kind == "schema":
        yield json.loads(structure.source)
    if structure.kind == "grammar":
        for match in _INLINE_SCHEMA.finditer(structure.source):
            yield json.JSONDecoder().raw_decode(structure.source, match.end())[0]
