"""The Python API on real weights."""

import enum
from pathlib import Path

import msgspec
import pytest
from pydantic import BaseModel, Field
from support.real_weights import real_weights
from support.worlds import make_world

import llmchat
from llmchat.settings import World

pytestmark = pytest.mark.slow


def test_the_default_model_answers_streams_and_answers_a_batch(smol_world: World) -> None:
    with llmchat.open("smollm2", world=smol_world, temperature=0) as chat:
        assert "Paris" in "".join(chat.say("What is the capital of France?"))
        answer = chat.ask("And of Italy?")
        assert "Rome" in answer.text and answer.usage.cached_tokens > 20
        found = llmchat.batch(
            ["What is the capital of France?", "What is the capital of Italy?"], chat,
            world=smol_world,
        )  # fmt: skip
        # So small a model answers the second one wrongly.
        assert "Paris" in found[0].text and "Italy" in found[1].text


class Kind(enum.Enum):
    MAMMAL = "mammal"
    BIRD = "bird"
    FISH = "fish"


class Animal(msgspec.Struct):
    name: str
    kind: Kind
    legs: int


class City(BaseModel):
    name: str
    country: str
    population: int = Field(gt=0)


def weather(city: str, days: int = 1) -> str:
    """Get the weather forecast of a city.

    Args:
        city: English name of the city.
        days: number of days ahead.
    """
    return f"{city}: sunny for {days} days, 7 degrees"


@pytest.mark.timeout(900)
def test_a_model_of_1_5b_fills_types_and_calls_functions(tmp_path: Path) -> None:
    file = real_weights("qwen15", tmp_path)
    options = {"temperature": 0, "max_tokens": 200, "weights": "int8"}
    with llmchat.open(str(file), tools=[weather], world=make_world(tmp_path), **options) as chat:
        city = chat.ask("Describe Rome: name, country and population.", schema=City).value
        assert city.country == "Italy" and city.population > 1_000_000
        animal = chat.new().ask("Describe a salmon: name, kind, legs.", schema=Animal).value
        assert (animal.kind, animal.legs) == (Kind.FISH, 0)
        answer = chat.new().ask("What will the weather be in Oslo in the next 3 days?")
        assert answer.tool_calls[0].arguments == {"city": "Oslo", "days": 3}
        assert "sunny" in answer.text
