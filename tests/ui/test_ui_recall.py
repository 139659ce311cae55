"""/recall: passages of past chats beside the question."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from support.repl import make_repl, preset, type_in

from llmchat.chat import Chat
from llmchat.engines.scripted import ScriptedEngine
from llmchat.history import History
from llmchat.ui.repl import Repl


@pytest.fixture
def repl(tmp_path: Path) -> Iterator[Repl]:
    """A REPL that saves its chats, after one about a dog."""
    repl = make_repl(tmp_path)
    with History(repl.state.world.history_file) as history:
        engine = ScriptedEngine(["A good name.", "His name is Rex [1].", "three"])
        repl.state.chat = Chat(preset(), engine, history)
        type_in(repl, "My dog is called Rex.", "/new")
        yield repl


def test_what_was_said_then_goes_beside_the_question(repl: Repl) -> None:
    first = repl.state.chat.history.latest()
    assert first
    shown = type_in(repl, "/recall What is the name of my dog?")
    assert "note: searching by words alone" in shown
    assert f"His name is Rex [1].\n[1] session:{first.id}/2 › My dog is called Rex." in shown
    question = repl.state.chat.conversation.messages[0]
    assert question.text == "What is the name of my dog?"
    assert question.passages[0].source == f"session:{first.id}/2"
    assert "My dog is called Rex.\n\nA good name." in question.input
    assert "material written by others" in question.input
    assert " passage " in type_in(repl, "/context")


def test_the_present_chat_is_not_searched(repl: Repl) -> None:
    type_in(repl, "I like walnuts.")
    shown = type_in(repl, "/recall walnuts")
    assert "no past chat fits `walnuts`" in shown
    assert len(repl.state.chat.conversation.messages) == 2


def test_attached_files_go_with_the_question_or_stay(repl: Repl) -> None:
    repl.state.attached["notes.txt"] = "my notes"
    type_in(repl, "/recall zebra")
    assert repl.state.attached == {"notes.txt": "my notes"}
    type_in(repl, "/recall dog")
    assert repl.state.attached == {}
    assert [name for name, _ in repl.state.chat.conversation.messages[0].files][-1] == "notes.txt"


def test_it_takes_a_question(repl: Repl) -> None:
    assert "/recall takes a question" in type_in(repl, "/recall")
