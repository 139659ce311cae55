"""`llmchat.open`, `say`, `ask` and `stream` on a scripted engine."""

import threading
from pathlib import Path
from typing import Any

import pytest
from support.scripted_api import engine_of, scripted, with_demo

import llmchat
from llmchat.errors import UsageError
from llmchat.settings import World


def test_say_gives_pieces_that_are_the_answer(tmp_path: Path) -> None:
    chat = scripted(tmp_path, "One two three.")
    pieces = chat.say("Count.")
    assert list(pieces) == ["One", " two", " three", "."]
    assert pieces.answer.text == "One two three." == str(chat.answer)


def test_ask_returns_the_answer_with_all_that_is_known_of_it(tmp_path: Path) -> None:
    chat = scripted(tmp_path, "Rome.")
    answer = chat.ask("Capital of Italy?", seed=3)
    assert (answer.text, answer.finish_reason, answer.seed) == ("Rome.", "stop", 3)
    assert (answer.model, answer.session, answer.value, answer.fault) == ("smollm2", None, None, "")
    assert answer.usage.completion_tokens == 2 and answer.window.sent >= 1
    assert (answer.tool_calls, answer.sources, answer.thinking) == ((), (), "")


def test_the_second_question_is_asked_with_the_first(tmp_path: Path) -> None:
    chat = scripted(tmp_path, "a", "b")
    chat.ask("one")
    chat.ask("two")
    prompt = engine_of(chat).prompts[1].text
    assert prompt.index("one") < prompt.index("a<|im_end|>") < prompt.index("two")
    assert [message.role for message in chat.messages][-4:] == ["user", "assistant"] * 2


def test_stream_gives_the_events(tmp_path: Path) -> None:
    kinds = [type(event) for event in scripted(tmp_path, "Hi.").stream("Hello")]
    assert kinds == [llmchat.Window, llmchat.Chunk, llmchat.Chunk, llmchat.Finish]


def test_nothing_is_asked_before_the_first_piece(tmp_path: Path) -> None:
    chat = scripted(tmp_path, "a")
    pieces = chat.say("one")
    assert [message for message in chat.messages if message.role == "user"] == []
    with pytest.raises(UsageError, match="has not ended"):
        _ = pieces.answer


def test_an_iteration_that_is_left_keeps_the_text_as_cancelled(tmp_path: Path) -> None:
    chat = scripted(tmp_path, "One two three.", "Four.")
    for piece in chat.say("Count."):
        if "two" in piece:
            break
    assert chat.answer is not None
    assert (chat.answer.text, chat.answer.finish_reason) == ("One two", "cancelled")
    assert chat.messages[-1].text == "One two"
    assert chat.ask("Go on.").text == "Four."


def test_a_new_question_cancels_an_answer_that_is_still_held(tmp_path: Path) -> None:
    chat = scripted(tmp_path, "One two three.", "Four.")
    held = chat.say("Count.")
    next(held)
    assert chat.ask("Go on.").text == "Four."
    assert [message.text for message in chat.messages if message.role == "assistant"] == [
        "One",
        "Four.",
    ]
    assert list(held) == []


def test_settings_of_one_answer_end_with_it(tmp_path: Path) -> None:
    chat = scripted(tmp_path, "one two three four")
    assert chat.ask("Count.", max_tokens=3).finish_reason == "length"
    assert chat.ask("Count.").finish_reason == "stop"
    chat.set(max_tokens=1)
    assert chat.ask("Count.").text == "one"
    with pytest.raises(UsageError, match="no setting `temprature`") as error:
        chat.ask("Count.", temprature=0)
    assert "`temperature`" in error.value.hint


def test_material_comes_from_texts_and_files(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("from a file")
    chat = scripted(tmp_path, "ok")
    chat.ask("What?", input={"note": "from a dict"}, files=[tmp_path / "a.txt"])
    message = chat.messages[-2]
    assert message.materials == [("note", "from a dict"), ("a.txt", "from a file")]
    chat.ask("And?", input="bare")
    assert chat.messages[-2].input == "bare"


def test_again_and_undo(tmp_path: Path) -> None:
    chat = scripted(tmp_path, "one", "two")
    chat.ask("Which?")
    assert chat.again().text == "two" == chat.messages[-1].text
    chat.undo()
    assert [message.role for message in chat.messages if message.role != "system"] == []


def test_chats_of_one_model_wait_for_each_other(tmp_path: Path) -> None:
    chat = scripted(tmp_path, "a b c")
    other = chat.new()
    held = chat.say("x")
    next(held)
    done = threading.Event()

    def ask() -> None:
        other.ask("y")
        done.set()

    thread = threading.Thread(target=ask)
    thread.start()
    assert not done.wait(0.3)
    list(held)
    thread.join(10)
    assert done.is_set() and other.answer is not None


def test_the_model_is_unloaded_with_its_last_chat(tmp_path: Path) -> None:
    chat = scripted(tmp_path, "a")
    other = chat.new()
    chat.close()
    chat.close()
    assert other.ask("x").text == "a"
    other.close()
    with pytest.raises(llmchat.LlmchatError, match="unloaded"):
        engine_of(chat).count("x")
    with pytest.raises(UsageError, match="closed"):
        chat.ask("x")


def test_open_takes_the_options_of_the_command_line(world: World) -> None:
    with_demo(world)
    with llmchat.open("demo", world=world, system="Be brief.", max_tokens=2) as chat:
        assert chat.messages[0].text == "Be brief."
        assert chat.ask("Hello").finish_reason == "length"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"temprature": 0}, "there is no option `temprature`"),
        ({"temperature": 9}, "temperature must be a number from 0 to 5, not `9`"),
        ({"no_log": True}, "there is no option `no_log` in Python"),
        ({"tool": "clock"}, "there is no option `tool` in Python"),
    ],
)
def test_a_wrong_option_is_one_line(world: World, options: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        llmchat.open("demo", world=with_demo(world), **options)


def test_a_model_that_is_not_here_is_an_error_with_the_way_out(world: World) -> None:
    with pytest.raises(llmchat.NotPulled) as error:
        llmchat.open("smollm2", world=world)
    assert "llmchat pull smollm2" in error.value.hint


def test_empty_questions_and_chats_are_errors(tmp_path: Path) -> None:
    chat = scripted(tmp_path, "a")
    with pytest.raises(UsageError, match="empty"):
        chat.ask("")
    with pytest.raises(UsageError, match="empty"):
        chat.save()


def test_a_preset_that_was_added_meanwhile_is_found(world: World) -> None:
    with_demo(world)
    with pytest.raises(llmchat.LlmchatError, match="no model is called `later`"):
        llmchat.open("later", world=world)
    (world.own_presets / "later.toml").write_text((world.own_presets / "demo.toml").read_text())
    with llmchat.open("later", world=world) as chat:
        assert chat.model == "later"


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ({"text": 5}, "the question must be a string, not int"),
        ({"text": "a\ud800"}, "the question contains a lone surrogate"),
        ({"input": 5}, "input must be a string, not int"),
        ({"input": {"a.py": b"x"}}, "input a.py must be a string, not bytes"),
        ({"input": {"a.py": "\udfff"}}, "input a.py contains a lone surrogate"),
        ({"files": "notes.md"}, "files must be a list of names"),
        ({"files": None}, "files must be a list of names"),
        ({"files": [5]}, "files must be a list of names"),
    ],
)
def test_what_is_no_text_is_refused_and_the_chat_goes_on(
    tmp_path: Path, asked: dict[str, Any], told: str
) -> None:
    chat = scripted(tmp_path, "Yes.")
    with pytest.raises(UsageError) as error:
        chat.ask(**({"text": "Is it?"} | asked))
    assert error.value.message == told and not chat.messages
    assert chat.ask("Is it?").text == "Yes."
