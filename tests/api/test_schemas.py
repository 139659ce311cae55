"""Answers as instances of the types that Python programs have."""

import datetime
import enum
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypedDict

import msgspec
import pydantic
import pytest
from support.scripted_api import scripted, with_demo

import llmchat
from llmchat.api.forms import closed, form_of
from llmchat.engines.guide import check
from llmchat.errors import UsageError
from llmchat.settings import World


class Person(msgspec.Struct):
    name: str
    age: int


class City(pydantic.BaseModel):
    name: str
    founded: datetime.date
    size: int = pydantic.Field(ge=0)
    twins: list[str] = []


@dataclass
class Point:
    x: float
    y: float


class Move(TypedDict):
    piece: str
    to: str


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Both(pydantic.BaseModel):
    city: City
    points: list[Point]


VALUES: list[tuple[Any, Any, Any]] = [
    (Person, {"name": "Bo", "age": 3}, Person("Bo", 3)),
    (
        City,
        {"name": "Rome", "founded": "0753-04-21", "size": 1},
        City(name="Rome", founded=datetime.date(753, 4, 21), size=1),
    ),
    (Point, {"x": 1, "y": 2.5}, Point(1.0, 2.5)),
    (Move, {"piece": "K", "to": "e4"}, {"piece": "K", "to": "e4"}),
    (Colour, "red", Colour.RED),
    (Literal["yes", "no"], "no", "no"),
    (list[int], [1, 2], [1, 2]),
    (dict[str, int], {"a": 1}, {"a": 1}),
    (bool, True, True),
    (Person | None, None, None),
    (
        list[City],
        [{"name": "Rome", "founded": "0753-04-21", "size": 1}],
        [City(name="Rome", founded=datetime.date(753, 4, 21), size=1)],
    ),
    ({"type": "object", "properties": {"a": {"type": "integer"}}}, {"a": 1}, {"a": 1}),
    ("name, age int", {"name": "Bo", "age": 3}, {"name": "Bo", "age": 3}),
]


@pytest.mark.parametrize(("kind", "written", "value"), VALUES, ids=lambda one: str(one)[:30])
def test_a_type_becomes_a_schema_and_a_text_its_value(
    tmp_path: Path, kind: Any, written: Any, value: Any
) -> None:
    structure = form_of(kind).structure
    assert structure is not None
    check(structure)  # the engine can enforce it
    answer = scripted(tmp_path, json.dumps(written), schema=kind).ask("Who?")
    assert (answer.value, answer.fault) == (value, "")


def test_texts_that_are_not_json_are_values_too(tmp_path: Path) -> None:
    chat = scripted(tmp_path, "yes")
    assert chat.ask("?", schema="choice yes no").value == "yes"
    assert chat.ask("?", schema="regex [a-z]+").value == "yes"
    assert chat.ask("?").value is None


def test_the_schema_of_one_answer_replaces_that_of_the_chat(tmp_path: Path) -> None:
    chat = scripted(tmp_path, '{"name": "Bo", "age": 3}', '{"x": 1, "y": 2}', "free", schema=Person)
    assert chat.ask("?").value == Person("Bo", 3)
    assert chat.ask("?", schema=Point).value == Point(1, 2)
    assert chat.ask("?", schema="off").value is None
    assert chat.new().ask("?").value == Person("Bo", 3)


def test_an_answer_that_was_cut_off_has_no_value(tmp_path: Path) -> None:
    answer = scripted(tmp_path, '{"name": "Bo", "age": 3}').ask("?", schema=Person, max_tokens=4)
    assert "cut off after 4 tokens" in answer.fault and "a larger max_tokens" in answer.fault
    with pytest.raises(llmchat.InvalidAnswer, match="cut off"):
        _ = answer.value


def test_what_a_validator_refuses_is_a_fault(tmp_path: Path) -> None:
    class Even(pydantic.BaseModel):
        n: int

        @pydantic.field_validator("n")
        @classmethod
        def is_even(cls, n: int) -> int:
            if n % 2:
                raise ValueError("odd")
            return n

    answer = scripted(tmp_path, '{"n": 3}').ask("?", schema=Even)
    assert answer.fault == "the value is not a valid `Even`: n: Value error, odd"


def test_objects_are_closed_unless_they_say_otherwise() -> None:
    schema = {
        "title": "A",
        "type": "object",
        "properties": {"title": {"title": "Title", "type": "string"}},
        "$defs": {"B": {"properties": {}, "additionalProperties": True}},
        "default": {"title": "kept"},
    }
    assert closed(schema) == {
        "type": "object",
        "properties": {"title": {"type": "string"}},
        "$defs": {"B": {"properties": {}, "additionalProperties": True}},
        "default": {"title": "kept"},
        "additionalProperties": False,
    }


def test_a_type_without_a_schema_is_an_error() -> None:
    with pytest.raises(UsageError, match="`module` has no JSON Schema"):
        form_of(type(json))


def test_a_schema_at_open_binds_every_answer(world: World) -> None:
    with_demo(world)
    with llmchat.open("demo", schema=Person, world=world) as chat:
        answer = chat.ask("Who?")
    assert answer.fault and answer.text.startswith("You wrote")
