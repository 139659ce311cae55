"""Structures as users write them: schemas, short forms, patterns, choices and grammars."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmchat import structure
from llmchat.errors import UsageError
from llmchat.structure import Structure, in_words
from llmchat.structure.arguments import of_flags, parse
from llmchat.structure.short_form import schema_of_short_form


def schema_of(text: str) -> Any:
    made = parse(text)
    assert made and made.kind == "schema"
    return json.loads(made.source)


def test_short_form_makes_an_object_with_required_fields() -> None:
    assert schema_of("name str, age int, height float, alive bool, tags [str]") == {
        "type": "object",
        "properties": {
            "name": {"type": "string"},
            "age": {"type": "integer"},
            "height": {"type": "number"},
            "alive": {"type": "boolean"},
            "tags": {"type": "array", "items": {"type": "string"}},
        },
        "required": ["name", "age", "height", "alive", "tags"],
        "additionalProperties": False,
    }


def test_short_form_separates_by_lines_and_takes_descriptions() -> None:
    schema = schema_of("name: the full name, with commas\n\nage int: in years\nrows [[float]]")
    assert schema["properties"] == {
        "name": {"type": "string", "description": "the full name, with commas"},
        "age": {"type": "integer", "description": "in years"},
        "rows": {"type": "array", "items": {"type": "array", "items": {"type": "number"}}},
    }


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        (
            "name, age integr",
            "the field `age` has the unknown type `integr`",
            "did you mean `int`?",
        ),
        ("name, name int", "the field `name` is given twice", ""),
        ("name str int", "`name str int` is not a name and a type", "for example"),
        (": what", "`: what` has no name", "for example"),
        ("tags [words]", "the field `tags` has the unknown type `words`", "a type is str, int"),
        (",,", "the schema has no fields", "for example"),
        ("", "the schema is empty", "give a file, JSON, or a short form"),
        (
            '{"type": }',
            "the JSON Schema is not valid JSON: Expecting value (line 1, column 10)",
            "",
        ),
        ('{"minimum": NaN}', "the JSON Schema is not valid JSON: NaN is not a JSON number", ""),
        ("{" * 9999, "the JSON Schema is not valid JSON: ", ""),
        ('{"a":' * 99999, "the JSON Schema is not valid JSON: it is nested too deeply", ""),
        ("nothing/here.json", "nothing/here.json cannot be read: No such file", ""),
        ("~/nothing here", "~/nothing here cannot be read: No such file", ""),
        ("grammar nothing.lark", "nothing.lark cannot be read: No such file", ""),
        ("grammar", "a grammar is the name of a file", "for example"),
        ("regex", "the regular expression is empty", ""),
        ("choice", "there is no choice", "give two texts"),
        ("choice a b a", "the choice `a` is given twice", ""),
        ('choice a ""', "a choice is empty", "each choice"),
        ('choice "a b', "the choices cannot be read: no closing quotation", "quote a choice"),
        ('choice ["a", 1]', "a choice is empty", "each choice"),
        ("json object", "`json` takes nothing, not `object`", "`schema …`"),
    ],
)
def test_malformed_structure_is_one_clear_error(text: str, message: str, hint: str) -> None:
    with pytest.raises(UsageError) as raised:
        parse(text)
    assert raised.value.message.startswith(message)
    assert raised.value.hint.startswith(hint)


def test_schema_is_read_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "person.json"
    file.write_text('{"type": "object",\n "properties": {"b": true, "a": {"enum": ["é"]}}}')
    expected = '{"type":"object","properties":{"b":true,"a":{"enum":["é"]}}}'
    assert parse(str(file)) == Structure("schema", expected)
    file.write_text("{\n oops}")
    with pytest.raises(
        UsageError, match=r"person\.json is not valid JSON: .* \(line 2, column 2\)"
    ):
        parse(str(file))
    file.write_text("[1]")
    with pytest.raises(UsageError, match="a JSON Schema is an object, not `\\[1\\]`"):
        parse(str(file))


def test_first_word_names_another_kind(tmp_path: Path) -> None:
    grammar = tmp_path / "date file.lark"
    grammar.write_text('start: "a"\n')
    assert parse("regex  [0-9]{4} *") == Structure("regex", "[0-9]{4} *".strip())
    assert parse('choice yes "not sure"').choices == ["yes", "not sure"]
    assert parse('choice ["yes", "no, never"]').choices == ["yes", "no, never"]
    assert parse(f"grammar {grammar}") == Structure("grammar", 'start: "a"\n')
    assert parse("json") == structure.ANY_JSON
    # A field may have the name of a kind.
    assert list(schema_of("schema regex str, json int")["properties"]) == ["regex", "json"]


def test_flags_are_written_as_one_argument() -> None:
    assert of_flags(None, None, (), None) is None
    assert schema_of(of_flags("json int", None, (), None) or "")["required"] == ["json"]
    assert parse(of_flags(None, "a +", (), None) or "") == Structure("regex", "a +")
    assert parse(of_flags(None, None, ["[", 'b "'], None) or "").choices == ["[", 'b "']
    with pytest.raises(UsageError, match="--schema and --choice exclude each other"):
        of_flags("a", None, ["b"], None)


NAMES = st.from_regex(r"[A-Za-z_]\w{0,8}", fullmatch=True).filter(
    lambda name: name not in ("json", "schema", "regex", "choice", "grammar", "true", "false")
)


@given(
    st.dictionaries(NAMES, st.sampled_from(["str", "int", "float", "bool", "[int]"]), min_size=1)
)
def test_short_form_keeps_every_field_in_order(fields: dict[str, str]) -> None:
    text = ", ".join(f"{name} {kind}" for name, kind in fields.items())
    schema = schema_of_short_form(text)
    assert list(schema["properties"]) == schema["required"] == list(fields)
    assert schema_of_short_form(text.replace(", ", "\n") + "\n") == schema


def test_structure_in_words_is_one_short_line() -> None:
    assert in_words(parse("name, age int")) == "schema: name, age"
    assert in_words(parse('{"type": "array"}')) == 'schema: {"type": "array"}'
    assert in_words(parse("choice yes no")) == "choice: yes, no"
    assert in_words(structure.ANY_JSON) == "any JSON object"
    assert in_words(Structure("grammar", "start: a\n\na: /x/")) == "grammar: start: a a: /x/"
    assert len(in_words(Structure("regex", "x" * 999))) == 67
