"""Roles in chats and batches of the Python API."""

from pathlib import Path
from typing import Any

import pytest
from support.scripted_api import with_demo

import llmchat
from llmchat.errors import ModelNotFound
from llmchat.settings import World

ROLE = """
system = "Be {kind}."
prompt = "In $language: $input"
[values]
language = "English"
[sampling]
max_tokens = 7
"""


@pytest.fixture
def demo(world: World) -> World:
    with_demo(world)
    world.own_roles.mkdir(parents=True)
    (world.own_roles / "teacher.toml").write_text(ROLE.format(kind="kind"))
    macro = 'prompt = "First $input"\nturns = ["Then $input."]\nmodel = "demo"\n'
    (world.own_roles / "macro.toml").write_text(macro)
    return world


def test_a_role_sets_options_and_words_each_question(demo: World) -> None:
    with llmchat.open("demo", role="teacher language=French", world=demo, save=True) as chat:
        assert chat.messages[0].text == "Be kind."
        answer = chat.ask("cat")
        assert answer.usage.completion_tokens == 7
        chat.ask("dog")
        assert [one.text for one in chat.messages if one.role == "user"] == [
            "In French: cat",
            "In French: dog",
        ]
        chat.new().ask("cow")
        session = chat.session
    with llmchat.open("demo", role="teacher", max_tokens=3, world=demo) as chat:
        assert chat.ask("cat").usage.completion_tokens == 3
    with llmchat.open(session=session, world=demo) as chat:
        chat.ask("cow")
        assert chat.messages[-2].text == "In French: cow"


def test_a_role_with_turns_gives_its_last_answer(demo: World) -> None:
    with llmchat.open(role="macro", world=demo) as chat:
        pieces = chat.say("x")
        text = "".join(pieces)
        assert "> Then x." in text and "> First x" not in text and pieces.answer.text == text
        asked = [one.text for one in chat.messages if one.role == "user"]
        assert asked == ["First x", "Then x."]
        events = [event for event in chat.stream("y") if isinstance(event, llmchat.Finish)]
        assert len(events) == 2


def test_a_batch_asks_in_a_role_and_lines_give_values(demo: World) -> None:
    rows: list[Any] = ["cat", {"prompt": "dog", "language": "Dutch"}]
    found = llmchat.batch(rows, "demo", role="teacher", max_tokens=40, world=demo)
    assert "> In English: cat" in found[0].text and "> In Dutch: dog" in found[1].text


def test_an_unknown_role_is_an_error(demo: World, tmp_path: Path) -> None:
    with pytest.raises(ModelNotFound, match="there is no role `techer`") as error:
        llmchat.open("demo", role="techer", world=demo)
    assert "`teacher`" in error.value.hint
