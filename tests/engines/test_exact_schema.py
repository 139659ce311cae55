"""What llguidance alone would let through: impossible dates, and names spelt with escapes."""

import datetime
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.schema_matcher import SchemaMatcher

from llmchat.engines.guide import check
from llmchat.engines.guide.exact_schema import exact
from llmchat.errors import UsageError
from llmchat.structure import from_schema


def accepts(schema: dict[str, Any], text: str) -> bool:
    return SchemaMatcher(schema).accepts_text(text)


@given(st.integers(0, 9999), st.integers(0, 13), st.integers(0, 32))
def test_dates_are_those_of_the_calendar(year: int, month: int, day: int) -> None:
    text = f"{year:04}-{month:02}-{day:02}"
    try:
        datetime.date.fromisoformat(text)
        exists = True
    except ValueError:
        exists = False
    assert accepts({"type": "string", "format": "date"}, f'"{text}"') == exists


@pytest.mark.parametrize(
    ("text", "valid"),
    [
        ("2024-02-29T23:59:60Z", True), ("2023-02-29T10:00:00Z", False),
        ("2023-01-01T10:00:60Z", False), ("2023-01-01T24:00:00Z", False),
        ("2023-01-01t10:00:00.25+05:30", True), ("2023-01-01T10:00:00", False),
    ],
)  # fmt: skip
def test_times_are_those_of_the_clock(text: str, valid: bool) -> None:
    assert accepts({"format": "date-time"}, f'"{text}"') == valid
    assert accepts({"format": "time"}, f'"{text[11:]}"') == (valid or text.startswith("2023-02-29"))
    assert accepts({"format": "date-time"}, "7"), "a format binds texts alone"


def test_format_and_pattern_bind_together() -> None:
    schema = {"type": "string", "format": "date", "pattern": "-01-", "allOf": [{"pattern": "^2"}]}
    assert accepts(schema, '"2023-01-31"')
    assert not accepts(schema, '"2023-02-28"') and not accepts(schema, '"1999-01-31"')


@pytest.mark.parametrize(
    ("schema", "name"),
    [
        ({"properties": {"a": {"type": "integer"}}}, '"\\u0061"'),
        ({"properties": {"é": {"type": "integer"}}}, '"\\u00e9"'),
        ({"patternProperties": {"^🐲$": {"type": "integer"}}}, '"\\ud83d\\udc32"'),
        ({"properties": {"a\n": {"type": "integer"}}}, '"a\\u000a"'),
    ],
)
def test_name_cannot_be_spelt_so_that_it_is_not_recognised(
    schema: dict[str, Any], name: str
) -> None:
    assert not accepts(schema, f'{{{name}: "text"}}')
    known = json.dumps(json.loads(name), ensure_ascii=False)
    assert accepts(schema, f"{{{known}: 1}}") and not accepts(schema, f'{{{known}: "text"}}')


@pytest.mark.parametrize(
    "schema",
    [
        {"const": "a\x00"},
        {"enum": [["\x1f"]]},
        {"properties": {"\x01": {}}},
        {"required": ["\x01"]},
    ],
)
def test_control_character_that_is_never_written_is_refused(schema: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=r"has the control character \\u00[01]"):
        check(from_schema(schema))
    check(from_schema({"enum": ["a\n\t\\u0001"]}))


def test_white_space_of_json_schema_contains_the_byte_order_mark() -> None:
    for pattern in (r"^\s$", r"^[\sx]$"):
        assert accepts({"type": "string", "pattern": pattern}, '"\ufeff"')
    for pattern in (r"^\S$", r"^[^\s]$", r"^[\Sx]$"):
        assert not accepts({"type": "string", "pattern": pattern}, '"\ufeff"')
    assert accepts({"type": "string", "pattern": r"^\\s$"}, r'"\\s"'), "an escaped backslash"


def test_names_and_values_are_not_taken_for_schemas() -> None:
    schema = {"properties": {"format": {"const": {"format": "date"}}}, "enum": [{"format": "date"}]}
    assert exact(schema) == schema


def test_schemas_inside_are_rewritten() -> None:
    made = exact({"items": [{"anyOf": [{"format": "date"}]}], "$defs": {"a": {"format": "time"}}})
    assert "format" not in json.dumps(made) and json.dumps(made).count("pattern") == 2


def test_schema_in_a_grammar_is_exact() -> None:
    lark = 'start: "x" %json {"properties": {"a": {"type": "integer"}}} "y"'
    matcher = SchemaMatcher.of_grammar(lark)
    assert matcher.accepts_text('x{"a": 1}y') or matcher.accepts_text('x{"a":1}y')
    assert not matcher.accepts_text('x{"\\u0061":"b"}y')
    assert not matcher.accepts_text('x{"\\u0061": "b"}y')
