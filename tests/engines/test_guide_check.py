"""Which structures are refused before anything is loaded, and what the refusal names."""

import json
from typing import Any

import pytest

from llmchat.engines.guide import check, checking
from llmchat.errors import UsageError
from llmchat.structure import (
    ANY_JSON,
    Structure,
    from_choices,
    from_grammar,
    from_regex,
    from_schema,
)

NODE = {"type": "object", "properties": {"next": {"$ref": "#"}}}


def refusal(structure: Structure) -> str:
    with pytest.raises(UsageError) as caught:
        check(structure)
    return f"{caught.value.message}\n{caught.value.hint}"


@pytest.mark.parametrize(
    "schema",
    [
        True,
        {},
        {"type": "string", "pattern": "^[a-z]+$", "minLength": 2},
        {"type": "string", "format": "date-time"},
        {"type": "integer", "minimum": 1, "multipleOf": 3},
        {"type": "array", "items": NODE, "minItems": 1},
        NODE,
        {"$ref": "#/$defs/a", "$defs": {"a": {"anyOf": [{"$ref": "#/$defs/a"}, {"const": 1}]}}},
        {"oneOf": [{"type": "integer"}, {"type": "string"}]},
        {"type": "object", "required": ["a"], "minProperties": 2, "properties": {"a": {}}},
    ],
    ids=json.dumps,
)
def test_a_schema_that_can_be_enforced_is_accepted(schema: Any) -> None:
    check(from_schema(schema))


@pytest.mark.parametrize(
    ("schema", "named"),
    [
        ({"type": "array", "uniqueItems": True}, "`uniqueItems`"),
        ({"not": {"type": "string"}}, "`not`"),
        ({"if": {}, "then": {}}, "`if` and `then`"),
        ({"type": "object", "dependentRequired": {"a": ["b"]}}, "`dependentRequired`"),
        ({"type": "string", "format": "iri"}, "`format` with the value `iri`"),
        ({"type": "string", "pattern": "a(?=b)"}, "`pattern`: look-around"),
        ({"type": "string", "pattern": r"\bword"}, "`pattern`: it uses an assertion"),
        ({"type": "string", "pattern": "("}, "`pattern`: unclosed group"),
        ({"oneOf": [{"type": "integer"}, {"type": "number"}]}, "`oneOf`"),
        ({"type": "object", "minProperties": 2}, "`minProperties`"),
        ({"$ref": "https://example.org/schema"}, "https://example.org/schema"),
        ({"$ref": "#"}, "`$ref`"),
        (NODE | {"required": ["next"]}, "`$ref` in a circle"),
        ({"type": "array", "items": {"$ref": "#"}, "minItems": 1}, "`$ref` in a circle"),
        ({"type": "string", "minLength": 3, "maxLength": 2}, "minLength (3)"),
        ({"type": "strnig"}, "strnig"),
        ({"x-guidance": {"lenient": True}, "not": {}}, "`not`"),
        (False, "cannot be used"),
    ],
    ids=json.dumps,
)
def test_a_keyword_that_cannot_be_enforced_is_named(schema: Any, named: str) -> None:
    assert named in refusal(from_schema(schema))


@pytest.mark.parametrize(
    ("structure", "named"),
    [
        (from_regex("(a"), "regular expression cannot be used: unclosed group"),
        (from_regex("a$b"), "assertion (End)"),
        (from_grammar('begin: "a"'), "no start rule"),
        (from_grammar("start: other"), 'unknown name: "other"'),
    ],
    ids=lambda value: getattr(value, "source", ""),
)
def test_a_malformed_pattern_or_grammar_is_refused(structure: Structure, named: str) -> None:
    assert named in refusal(structure)


@pytest.mark.parametrize(
    "structure",
    [
        ANY_JSON,
        from_regex("^[0-9]{4}$"),
        from_choices(["yes", 'a "quoted"\n\\ one', "é\x01"]),
        from_grammar('start: TEXT <|tool|> %json {"type": "object"}\nTEXT: /(.|\\n)*/'),
    ],
    ids=lambda structure: structure.kind,
)
def test_other_kinds_are_accepted(structure: Structure) -> None:
    check(structure)


def test_a_schema_that_is_too_large_is_refused_unread(monkeypatch: pytest.MonkeyPatch) -> None:
    many = {f"p{number}": {"type": "integer"} for number in range(100_000)}
    large = from_schema({"type": "object", "properties": many})
    monkeypatch.setattr(checking, "grammar_of", lambda structure: pytest.fail("it was read"))
    assert "2,788,922 characters" in refusal(large)


def test_a_schema_that_is_nested_too_deeply_is_refused() -> None:
    deep: dict[str, Any] = {"type": "integer"}
    for _ in range(500):
        deep = {"type": "array", "items": deep}
    assert "recursion" in refusal(from_schema(deep))


@pytest.mark.parametrize(
    "pattern", ["(a{1,1000}){1,1000}", "(.*a){25}", "(x+x+)+y", "(a|b)*a(a|b){200}"]
)
def test_a_pattern_with_exponentially_many_states_is_accepted(pattern: str) -> None:
    check(from_regex(pattern))
