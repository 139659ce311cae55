"""Grammars for the arguments of a call, in each notation, from the tool's JSON Schema."""

import json
from collections.abc import Callable
from typing import Any

from llmchat.tool_syntax import schemas
from llmchat.tool_syntax.dialect import Dialect, Notation
from llmchat.tool_syntax.lark import Grammar, choice, pattern, quoted
from llmchat.tool_syntax.schemas import Schema

# As templates write JSON, which leaves the white space to no choice. It replaces the options of a
# schema's own. Older versions of llguidance, such as llama.cpp's, refuse further options.
JSON_STYLE: dict[str, Any] = {
    "whitespace_flexible": False,
    "item_separator": ", ",
    "key_separator": ": ",
    "coerce_one_of": False,
    "lenient": False,
}
ANY = pattern(r"(?s:.*)")
# The formats of JSON Schema as patterns, for notations that write strings without quotes.
_FORMATS = {
    "date": r"[0-9]{4}-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])",
    "time": r"([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](\.[0-9]+)?(Z|[+-][0-9]{2}:[0-9]{2})",
    "date-time": r"[0-9]{4}-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])T([01][0-9]|2[0-3]):[0-5][0-9]"
    r":[0-5][0-9](\.[0-9]+)?(Z|[+-][0-9]{2}:[0-9]{2})",
    "uuid": r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}",
    "email": r"[A-Za-z0-9._%+-]+@[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)+",
    "ipv4": r"((25[0-5]|2[0-4][0-9]|1?[0-9]?[0-9])\.){3}(25[0-5]|2[0-4][0-9]|1?[0-9]?[0-9])",
    "uri": r"[A-Za-z][A-Za-z0-9+.-]*:[^\s]*",
}


def json_arguments(grammar: Grammar, dialect: Dialect, schema: Schema) -> str:
    return json_rule(grammar, schema)


def json_rule(grammar: Grammar, schema: Schema) -> str:
    """JSON text under a schema, on one line."""
    styled = schema | {"x-guidance": JSON_STYLE}
    return grammar.rule("json", f"%json {json.dumps(styled, ensure_ascii=False)}")


def python_arguments(grammar: Grammar, dialect: Dialect, schema: Schema) -> str:
    """Keyword arguments in the order of the schema, with values as JSON writes them, except that
    Python spells True, False and None."""
    pairs = [
        (f"{quoted(f'{name}=')} {_python_value(grammar, inner)}", required)
        for name, (inner, required) in schemas.properties(schema).items()
    ]
    return _separated(grammar, pairs, ", ")


def _python_value(grammar: Grammar, schema: Schema) -> str:
    allowed = schemas.kinds(schema, schema)
    if allowed and allowed <= {"boolean", "null"}:
        words = {"boolean": ["True", "False"], "null": ["None"]}
        return choice([quoted(word) for kind in sorted(allowed) for word in words[kind]])
    return json_rule(grammar, schema)


def _separated(grammar: Grammar, pairs: list[tuple[str, bool]], separator: str) -> str:
    """Optional and required items in order. A rule each for what follows the first item written,
    and for what follows while none is."""
    begun = unbegun = '""'
    for item, required in reversed(pairs):
        after = f"{quoted(separator)} {item} {begun}"
        first = f"{item} {begun}"
        begun, unbegun = (
            grammar.rule("more", after if required else f"{after} | {begun}"),
            grammar.rule("args", first if required else f"{first} | {unbegun}"),
        )
    return unbegun


def xml_arguments(grammar: Grammar, dialect: Dialect, schema: Schema) -> str:
    """Elements in the order of the schema."""
    opening, middle, closing = dialect.parameter
    elements = []
    for name, (inner, required) in schemas.properties(schema).items():
        start = grammar.text(opening + name + middle)
        element = f"{start} {_bare_value(grammar, inner, closing)}"
        elements.append(element if required else f"({element})?")
    return " ".join(elements) or '""'


def _bare_value(grammar: Grammar, schema: Schema, closing: str) -> str:
    """A value without quotes, up to the text that closes it and over it."""
    target = schemas.resolved(schema, schema)
    if "enum" in target or "const" in target:
        values = target.get("enum", [target.get("const")])
        return f"{choice([quoted(_bare_text(value)) for value in values])} {grammar.text(closing)}"
    allowed = schemas.kinds(schema, schema)
    if allowed and "string" not in allowed:
        return f"{json_rule(grammar, schema)} {grammar.text(closing)}"
    return grammar.till(_string_terminal(grammar, target, allowed), closing)


def _bare_text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _string_terminal(grammar: Grammar, schema: Schema, allowed: frozenset[str]) -> str:
    """What a string may be, as a terminal."""
    if allowed != {"string"}:
        return ANY
    limits = [ANY]
    if "pattern" in schema:
        limits.append(pattern(_searched(schema["pattern"])))
    if schema.get("format") in _FORMATS:
        limits.append(pattern(_FORMATS[schema["format"]]))
    least, most = schema.get("minLength", 0), schema.get("maxLength", "")
    if least or most != "":
        limits.append(pattern(rf"(?s:.){{{least},{most}}}"))
    return grammar.terminal(" & ".join(limits)) if len(limits) > 1 else ANY


def _searched(expression: str) -> str:
    """JSON Schema searches for a pattern anywhere in a text; here it must match the whole text."""
    start = "" if expression.startswith("^") else "(?s:.*)"
    ends = expression.endswith("$") and not expression.endswith("\\$")
    body = expression.removeprefix("^")
    return f"{start}(?:{body[:-1] if ends else body}){'' if ends else '(?s:.*)'}"


def gemma_arguments(grammar: Grammar, dialect: Dialect, schema: Schema) -> str:
    """Pairs in the order of their keys, as the family's templates write them."""
    return _gemma_pairs(grammar, dialect, schema, schema, 0)


def _gemma_pairs(
    grammar: Grammar, dialect: Dialect, schema: Schema, root: Schema, depth: int
) -> str:
    required = schema.get("required", ())
    pairs = [
        (
            f"{quoted(f'{name}:')} {_gemma_value(grammar, dialect, inner, root, depth)}",
            name in required,
        )
        for name, inner in sorted(schema.get("properties", {}).items())
    ]
    return _separated(grammar, pairs, ",")


_DEEPEST = 8


def _gemma_value(grammar: Grammar, dialect: Dialect, schema: Any, root: Schema, depth: int) -> str:
    schema = schemas.resolved(schema, root)
    if "enum" in schema or "const" in schema:
        values = schema.get("enum", [schema.get("const")])
        return choice([_gemma_literal(grammar, dialect, value) for value in values])
    choices = [*schema.get("anyOf", ()), *schema.get("oneOf", ())]
    if choices and depth < _DEEPEST:
        options = [_gemma_value(grammar, dialect, one, root, depth + 1) for one in choices]
        return choice(list(dict.fromkeys(options)))
    allowed = schemas.kinds(schema, root) or {"string", "number", "boolean", "null"}
    options = [_gemma_kind(grammar, dialect, kind, schema, root, depth) for kind in sorted(allowed)]
    return grammar.rule("value", choice(options))


def _gemma_kind(
    grammar: Grammar, dialect: Dialect, kind: str, schema: Schema, root: Schema, depth: int
) -> str:
    if kind == "string":
        content = _string_terminal(grammar, schema, frozenset({"string"}))
        return f"{grammar.text(dialect.quote)} {grammar.till(content, dialect.quote)}"
    if kind == "object" and depth < _DEEPEST:
        inner = _gemma_pairs(grammar, dialect, schema, root, depth + 1)
        return f'"{{" {inner} "}}"'
    if kind == "array" and depth < _DEEPEST:
        item = _gemma_value(grammar, dialect, schema.get("items", {}), root, depth + 1)
        return f'"[" ({item} ("," {item})*)? "]"'
    if kind in ("object", "array"):
        return '"{}"' if kind == "object" else '"[]"'
    limits = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf")
    kept = {name: schema[name] for name in limits if name in schema}
    return json_rule(grammar, {"type": kind, **kept})


def _gemma_literal(grammar: Grammar, dialect: Dialect, value: Any) -> str:
    if isinstance(value, str):
        return grammar.text(dialect.quote + value + dialect.quote)
    return quoted(json.dumps(value, ensure_ascii=False))


WRITERS: dict[Notation, Callable[[Grammar, Dialect, Schema], str]] = {
    "json": json_arguments,
    "python": python_arguments,
    "xml": xml_arguments,
    "gemma": gemma_arguments,
}
