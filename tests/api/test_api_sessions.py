"""Chats of the Python API as sessions of the history."""

from pathlib import Path

import pytest
from support.scripted_api import scripted, with_demo
from support.worlds import make_world

import llmchat
from llmchat.errors import UsageError
from llmchat.history import History
from llmchat.settings import World


def test_a_chat_leaves_no_trace_unless_it_is_saved(tmp_path: Path) -> None:
    chat = scripted(tmp_path, "a")
    chat.ask("x")
    assert chat.session is None and not make_world(tmp_path).history_file.exists()


def test_saving_keeps_what_was_said_and_what_follows(tmp_path: Path) -> None:
    chat = scripted(tmp_path, "one two three", "b")
    chat.ask("x", max_tokens=3)
    session = chat.save("A title")
    chat.ask("y")
    world = make_world(tmp_path)
    (found,) = llmchat.sessions(world=world)
    assert (found.id, found.title, found.turns) == (
        session,
        "A title",
        2,
    ) and chat.session == session
    records = History(world.history_file).messages(session)
    assert [one.message.text for one in records if one.message.role != "system"] == [
        "x", "one two", "y", "b",
    ]  # fmt: skip
    answers = [one for one in records if one.message.role == "assistant"]
    assert [one.details["reason"] for one in answers] == ["length", "stop"]
    assert answers[0].details["made_by"] == {"model": "scripted"}
    assert chat.save() == session


def test_a_cancelled_answer_is_saved_as_one(tmp_path: Path) -> None:
    chat = scripted(tmp_path, "one two three")
    with chat.say("x") as pieces:
        next(pieces)
    records = History(make_world(tmp_path).history_file).messages(chat.save())
    assert records[-1].state == "cancelled"


def test_a_session_is_continued_with_its_model_and_settings(world: World) -> None:
    with_demo(world)
    with llmchat.open("demo", world=world, save=True) as chat:
        chat.set(max_tokens=3)
        session = chat.ask("first").session
    assert session
    with llmchat.open(session=session[:5], world=world) as again:
        assert again.model == "demo" and again.session == session
        assert again.messages[-2].text == "first"
        assert again.ask("second").usage.completion_tokens == 3
    with llmchat.open(session="last", world=world) as last:
        assert sum(message.role == "user" for message in last.messages) == 2


def test_a_session_that_does_not_exist_is_an_error(world: World) -> None:
    with pytest.raises(UsageError, match="no session"):
        llmchat.open(session="last", world=world)
    with pytest.raises(UsageError, match="no session begins with `zzz`"):
        llmchat.open(session="zzz", world=world)
