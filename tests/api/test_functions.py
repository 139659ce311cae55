"""Plain functions as tools: their definitions, and calls through a chat."""

import datetime
import enum
import functools
import json
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import Annotated, Any

import msgspec
import pydantic
import pytest
from support.scripted_api import engine_of, scripted

import llmchat
from llmchat.api.functions import FunctionTool
from llmchat.errors import UsageError


class Unit(enum.Enum):
    CELSIUS = "c"
    FAHRENHEIT = "f"


@dataclass
class Place:
    city: str
    country: str = "NO"


class Box(pydantic.BaseModel):
    size: int = pydantic.Field(gt=0, description="in cm")


class Star(msgspec.Struct):
    name: str


def weather(place: Place, day: datetime.date, unit: Unit = Unit.CELSIUS, hours: int = 24) -> str:
    """Get the weather forecast.

    It is never wrong.

    Args:
        place: where.
        day: which day,
            also in the past.
        hours (int): how many.
    """
    return f"{place.city} {place.country} {day:%d.%m.%Y} {unit.name} {hours}"


def call(function: Any, /, **arguments: Any) -> str:
    return FunctionTool(function).run(arguments, Event()).text


def test_the_definition_comes_from_signature_and_docstring() -> None:
    tool = FunctionTool(weather)
    assert tool.name == "weather"
    assert tool.description == "Get the weather forecast.\n\nIt is never wrong."
    schema = tool.parameters
    assert schema["required"] == ["place", "day"] and schema["additionalProperties"] is False
    properties = schema["properties"]
    assert properties["place"] == {"$ref": "#/$defs/Place", "description": "where."}
    assert properties["day"]["format"] == "date"
    assert properties["day"]["description"].split() == [
        "which",
        "day,",
        "also",
        "in",
        "the",
        "past.",
    ]
    assert properties["hours"] == {"type": "integer", "description": "how many.", "default": 24}
    assert schema["$defs"]["Place"]["properties"]["country"] == {"type": "string", "default": "NO"}


def test_arguments_arrive_with_their_types() -> None:
    place = {"city": "Oslo"}
    assert call(weather, place=place, day="2026-11-26") == "Oslo NO 26.11.2026 CELSIUS 24"
    assert call(weather, place=place, day="2026-11-26", unit="f", hours=1).endswith("FAHRENHEIT 1")


@pytest.mark.parametrize(
    "docstring",
    [
        "Add.\n\n:param a: the first\n:param b: the second",
        "Add.\n\nParameters\n----------\na : int\n    the first\nb : int\n    the second",
        "Add.\n\nArgs:\n    a: the first\n    b: the second",
    ],
    ids=["sphinx", "numpy", "google"],
)
def test_docstrings_of_all_styles_describe_parameters(docstring: str) -> None:
    def add(a: int, b: int) -> int:
        return a + b

    add.__doc__ = docstring
    tool = FunctionTool(add)
    about = [one["description"] for one in tool.parameters["properties"].values()]
    assert (tool.description, about) == ("Add.", ["the first", "the second"])


def test_annotated_texts_and_models_describe_parameters() -> None:
    def pack(
        boxes: list[Box], star: Star, n: Annotated[int, "how many"],
        m: Annotated[int, pydantic.Field(ge=1, description="at least one")] = 1,
    ) -> Any:  # fmt: skip
        return {"boxes": boxes, "star": star, "sum": n + m}

    properties = FunctionTool(pack).parameters["properties"]
    assert properties["n"]["description"] == "how many"
    assert properties["m"] == {
        "type": "integer", "minimum": 1, "description": "at least one", "default": 1,
    }  # fmt: skip
    written = json.loads(call(pack, boxes=[{"size": 2}], star={"name": "Vega"}, n=1))
    assert written == {"boxes": [{"size": 2}], "star": {"name": "Vega"}, "sum": 2}
    with pytest.raises(llmchat.LlmchatError, match="size: Input should be greater than 0"):
        call(pack, boxes=[{"size": 0}], star={"name": "Vega"}, n=1)


def test_methods_partials_callables_and_positional_parameters_are_functions() -> None:
    class Shop:
        def price(self, item: str, /, count: int = 1) -> str:
            return f"{count} x {item}"

        def __call__(self, item: str) -> str:
            return item.upper()

    assert call(Shop().price, item="apple", count=2) == "2 x apple"
    assert call(functools.partial(weather, hours=3), place={"city": "Rome"}, day="2026-01-01")
    tool = FunctionTool(Shop())
    assert tool.name == "Shop" and tool.run({"item": "a"}, Event()).text == "A"


def test_a_function_without_types_takes_any_json() -> None:
    def echo(value):  # type: ignore[no-untyped-def]
        return value

    tool = FunctionTool(echo)
    assert (tool.description, tool.parameters["properties"]) == ("echo", {"value": {}})
    assert json.loads(call(echo, value={"a": [1, None]})) == {"a": [1, None]}


def test_coroutines_run_to_their_end() -> None:
    async def fetch(url: str) -> str:
        return f"page of {url}"

    assert call(fetch, url="x") == "page of x"


def test_results_are_written_for_the_model() -> None:
    assert call(lambda_named(None)) == "done"
    assert call(lambda_named("text")) == "text"
    assert call(lambda_named({"a": datetime.date(2026, 1, 1)})) == '{"a":"2026-01-01"}'


def lambda_named(value: Any) -> Any:
    def give() -> Any:
        return value

    return give


def several(*names: str) -> None: ...


def unknown(place: "Nowhere") -> None: ...  # type: ignore[name-defined]  # noqa: F821


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda: 0, "a function named `<lambda>`"),
        (several, "any number of arguments"),
        (unknown, "types of `unknown` cannot be read"),
        (3, "a tool must be a function or a name, not `int`"),
    ],
)
def test_what_no_model_can_call_is_an_error(function: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        FunctionTool(function)


CALL = '<tool_call>\n{"name": "double", "arguments": {"n": 4}}\n</tool_call>'


def test_a_chat_calls_a_function_and_answers_with_its_result(tmp_path: Path) -> None:
    def double(n: int) -> int:
        """Double a number."""
        return 2 * n

    chat = scripted(tmp_path, "Let me see. " + CALL, "It is 8.", tools=[double])
    answer = chat.ask("Twice 4?")
    assert answer.text == "Let me see.\n\nIt is 8."
    (use,) = answer.tool_calls
    assert (use.name, use.arguments, use.result, use.error, use.allowed) == (
        "double", {"n": 4}, "8", "", True,
    )  # fmt: skip
    assert '"description": "Double a number."' in engine_of(chat).prompts[0].text
    assert "<tool_response>\n8" in engine_of(chat).prompts[1].text


def test_an_exception_is_the_result_of_the_call(tmp_path: Path) -> None:
    def double(n: int) -> int:
        raise ValueError("no doubles today")

    answer = scripted(tmp_path, CALL, "Sorry.", tools=[double]).ask("Twice 4?")
    assert answer.tool_calls[0].error == "the tool failed: ValueError: no doubles today"


def test_a_tool_may_ask_in_a_chat_of_its_own_but_not_in_the_one_that_calls_it(
    tmp_path: Path,
) -> None:
    chat: Any = None

    def double(n: int) -> str:
        with pytest.raises(UsageError, match="this chat is already answering"):
            chat.ask("and I?")
        with chat.new() as other:
            return str(other.ask("Twice?"))

    chat = scripted(tmp_path, CALL, "inner", "outer", tools=[double])
    answer = chat.ask("Twice 4?")
    assert (answer.tool_calls[0].result, answer.text) == ("inner", "outer")


def test_built_in_tools_run_where_they_are_allowed_or_confirmed(tmp_path: Path) -> None:
    written = (
        '<tool_call>\n{"name": "calculator", "arguments": {"expression": "6*7"}}\n</tool_call>'
    )
    chat = scripted(tmp_path, written, "?", tools=["calculator"])
    assert not chat.ask("6*7?").tool_calls[0].allowed
    chat = scripted(tmp_path, written, "42", tools=["calculator"], allow=["calculator"])
    assert chat.ask("6*7?").tool_calls[0].result == "42"
    asked = []

    def confirm(call: llmchat.Call) -> bool:
        asked.append(call.arguments)
        return True

    chat = scripted(tmp_path, written, "42", tools=["calculator"], confirm=confirm)
    assert chat.ask("6*7?").tool_calls[0].result == "42" and asked == [{"expression": "6*7"}]
