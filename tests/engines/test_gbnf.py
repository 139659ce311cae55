"""Patterns and choices as grammars of llama.cpp, and the schemas that its converter enforces."""

import itertools
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.gbnf_matcher import matches

from llmchat.engines.gbnf import check_converted, grammar_of_choices, grammar_of_regex
from llmchat.errors import UsageError

TEXTS = ["".join(text) for size in range(5) for text in itertools.product("ab1\n", repeat=size)]


@pytest.mark.parametrize(
    "pattern",
    [
        "a", "ab|b1", "a*b+1?", "(a|b){2}", "(ab){1,2}1*", "a{2,}", "a{,2}b", "[ab]+1", "[^a]b",
        ".", ".+", "(?s:.)b", "(?s)a.", r"\d\w", r"a\s?", "^a|b$", "^(a|b)$", "(^a|^b)1", "a+?b*?",
        "(?:a|)b", "(?P<name>a)b", "(a(b(1)*)?)?", "()", "[a-b1]{3}", r"a\nb", "[^ab]*", r"[\d\n]a",
        "aa|ab", "(|a)(|b)",
    ],
)  # fmt: skip
def test_grammar_matches_exactly_the_texts_of_the_pattern(pattern: str) -> None:
    grammar = grammar_of_regex(pattern)
    for text in TEXTS:
        assert matches(grammar, text) == bool(re.fullmatch(pattern, text)), (grammar, text)


PATTERNS = st.recursive(
    st.sampled_from(["a", "b", "1", "[ab]", "[^b]", ".", r"\d", ""]),
    lambda inner: (
        st.tuples(inner, inner).map("".join)
        | st.tuples(inner, inner).map(lambda two: f"({two[0]}|{two[1]})")
        | st.tuples(inner, st.sampled_from(["*", "+", "?", "{2}", "{0,2}", "{1,}"])).map(
            lambda two: f"({two[0]}){two[1]}"
        )
    ),
    max_leaves=6,
)


@given(PATTERNS, st.text("ab1\n", max_size=5))
def test_grammar_and_pattern_agree_on_any_text(pattern: str, text: str) -> None:
    assert matches(grammar_of_regex(pattern), text) == bool(re.fullmatch(pattern, text))


@given(st.lists(st.text(min_size=1, max_size=6), min_size=1, max_size=4), st.text(max_size=6))
def test_choices_are_exactly_the_texts(choices: list[str], other: str) -> None:
    grammar = grammar_of_choices(choices)
    assert all(matches(grammar, choice) for choice in choices)
    assert matches(grammar, other) == (other in choices)


@pytest.mark.parametrize(
    ("pattern", "what"),
    [
        (r"(a)\1", "a backreference"), ("(?!a)b", "a lookaround"), ("(?<=a)b", "a lookaround"),
        ("(?>a)b", "an atomic group"), ("a++b", "a possessive quantifier"), (r"a\bb", "an anchor"),
        ("a^b", "an anchor"), ("(?i)a", r"the flag (?i)"), ("(?i:a)", "flags inside"),
        (r"\S", r"\D, \W or \S"), (r"[\W]", r"\D, \W or \S"), ("(a)?(?(1)b|c)", "a condition"),
    ],
)  # fmt: skip
def test_what_is_not_regular_is_refused_by_name(pattern: str, what: str) -> None:
    with pytest.raises(UsageError, match=f"cannot express {re.escape(what)}") as raised:
        grammar_of_regex(pattern)
    assert raised.value.hint


@pytest.mark.parametrize("pattern", ["(a", "[a", "a{2", "*a", "(" * 5000, r"\p{L}"])
def test_malformed_pattern_is_one_error(pattern: str) -> None:
    if pattern == "a{2":
        # Python reads it as text.
        assert matches(grammar_of_regex(pattern), "a{2")
        return
    with pytest.raises(UsageError, match="the regular expression cannot be used"):
        grammar_of_regex(pattern)


def test_repetitions_that_llama_cpp_refuses_are_refused_here() -> None:
    with pytest.raises(UsageError, match="repeat at most 2,000 times, not 2,001"):
        grammar_of_regex("a{2001}")


@pytest.mark.parametrize(
    "schema",
    [
        {},
        {"title": "t", "description": "d", "default": 1},
        {"type": "object"},
        {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]},
        {"type": "object", "additionalProperties": {"type": "number"}},
        {"type": "array", "items": {"enum": ["a", 1]}, "minItems": 1, "maxItems": 3},
        {"type": "string", "minLength": 1, "maxLength": 5},
        {"type": "integer", "minimum": -3, "maximum": 7},
        {"type": ["string", "null"]},
        {"anyOf": [{"type": "boolean"}, {"const": None}]},
        {"$ref": "#/$defs/a", "$defs": {"a": {"type": "string"}}},
    ],
)
def test_shapes_that_llama_cpp_enforces_are_taken(schema: dict[str, Any]) -> None:
    check_converted(schema)


@pytest.mark.parametrize(
    ("schema", "what"),
    [
        ({"type": "number", "minimum": 0}, "`minimum` for the type number"),
        ({"type": "string", "pattern": "^a$"}, "`pattern` for the type string"),
        ({"type": "string", "format": "date"}, "`format` for the type string"),
        ({"type": "array", "uniqueItems": True, "items": {}}, "`uniqueItems` for the type array"),
        ({"type": "array", "minItems": 1}, "`minItems` and `maxItems` without `items`"),
        ({"type": "array", "prefixItems": [{}]}, "`prefixItems` for the type array"),
        ({"type": "object", "patternProperties": {}}, "`patternProperties` for the type object"),
        ({"type": "object", "required": ["a"]}, "`required` of `a`"),
        (
            {"properties": {"a": {}}, "additionalProperties": {"type": "null"}, "type": "object"},
            "`additionalProperties` beside `properties`",
        ),
        ({"type": "string", "enum": ["a", 1]}, "`type` beside `enum`"),
        ({"oneOf": [{}]}, "`oneOf` for the type any"),
        ({"not": {}}, "`not` for the type any"),
        ({"anyOf": [{}], "type": "string"}, "`type` beside `anyOf`"),
        ({"anyOf": [{"type": "number", "multipleOf": 2}]}, "`multipleOf` for the type number"),
        ({"$ref": "#/properties/a"}, "`$ref` to `#/properties/a`"),
        ({"$ref": "#/$defs/a", "type": "string"}, "`type` beside `$ref`"),
        ({"$defs": {"a": {"not": {}}}}, "`not` for the type any"),
        ({"type": "object", "properties": {"a": True}}, "the schema `true`"),
        ({"type": "integer", "minimum": 1.5}, "a bound that is not a whole number"),
        ({"type": "integer", "maximum": -5}, "a negative `maximum` without `minimum`"),
        ({"type": "integer", "minimum": 1, "exclusiveMinimum": 1}, "`exclusiveMinimum` beside"),
        ({"type": "date"}, "the type `date`"),
        (True, "the schema `true`"),
    ],
)
def test_what_llama_cpp_leaves_out_is_refused_by_name(schema: Any, what: str) -> None:
    with pytest.raises(UsageError) as raised:
        check_converted(schema)
    assert raised.value.message.startswith(f"llama.cpp does not enforce {what}")
