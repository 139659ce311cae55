"""Keywords of a typed message: @web, @file and @time."""

from pathlib import Path

import pytest
from support.repl import make_repl, type_in
from support.worlds import make_world

from llmchat.ui import keywords
from llmchat.ui.input_parser import parse_input


@pytest.mark.parametrize("line", ["@web who won?", "@web   who won?"])
def test_web_is_the_command_for_answers_from_the_web(line: str) -> None:
    command, arguments = parse_input(line, {})  # type: ignore[misc]
    assert (command.name, arguments) == ("web", "who won?")


@pytest.mark.parametrize("line", ["@web", "look @web page", "me@web site", "@website x"])
def test_other_mentions_of_the_word_are_text(line: str) -> None:
    assert parse_input(line, {}) == line


def test_a_file_is_attached(tmp_path: Path) -> None:
    repl = make_repl(tmp_path / "home")
    notes = tmp_path / "notes.txt"
    notes.write_text("three words here")
    type_in(repl, f"@file {notes} What is it?")
    message = repl.state.chat.conversation.messages[0]
    assert message.input == "three words here"


def test_the_time_is_attached(tmp_path: Path) -> None:
    repl = make_repl(tmp_path / "home")
    type_in(repl, "@time Is it late?")
    message = repl.state.chat.conversation.messages[0]
    assert message.files[0][0] == "time" and "UTC" in message.input


@pytest.mark.parametrize("text", ["at the @timeline", "me@time"])
def test_a_longer_word_is_not_the_time(text: str, tmp_path: Path) -> None:
    assert keywords.time_of(text, make_world(tmp_path)) is None
