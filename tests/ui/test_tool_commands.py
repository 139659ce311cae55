"""/tools lists, turns on and off, and gives leave; /show tool prints a whole output."""

from pathlib import Path

import pytest
from support.repl import make_repl, type_in
from support.tools import SmallTool

from llmchat.engines.scripted import ScriptedEngine
from llmchat.tools.permission import Permissions
from llmchat.tools.toolbox import Toolbox
from llmchat.ui.repl import Repl

CALL = '<tool_call>\n{"name": "echo", "arguments": {"text": "hi"}}\n</tool_call>'


@pytest.fixture
def repl(tmp_path: Path) -> Repl:
    made = make_repl(tmp_path)
    made.state.chat.tools = Toolbox([SmallTool()], Permissions(None))
    made.state.chat.engine = ScriptedEngine([CALL, "It said hi."], context=4096)
    return made


def test_the_list_shows_what_asks_and_what_is_off(repl: Repl) -> None:
    assert "echo                  asks      Repeat the text" in type_in(repl, "/tools")
    assert "allowed" in type_in(repl, "/tools allow echo")
    assert "asks" in type_in(repl, "/tools forget echo")
    assert "off" in type_in(repl, "/tools off echo")
    assert "asks" in type_in(repl, "/tools on echo")


@pytest.mark.parametrize("line", ["/tools maybe echo", "/tools on", "/tools off nothing"])
def test_a_wrong_argument_is_one_line(repl: Repl, line: str) -> None:
    assert "error: " in type_in(repl, line)


def test_a_call_and_its_result_are_lines_of_the_answer(repl: Repl) -> None:
    shown = type_in(repl, "/tools allow echo", "say hi")
    assert 'tool 1: echo(text="hi")\n→ 2 characters in ' in shown
    assert "It said hi." in shown
    assert "tool_call" not in shown


def test_a_refused_call_is_a_line_and_the_chat_goes_on(repl: Repl) -> None:
    shown = type_in(repl, "say hi")
    assert "→ not allowed" in shown and "It said hi." in shown


def test_the_whole_output_is_shown_by_its_number(repl: Repl) -> None:
    type_in(repl, "/tools allow echo", "say hi")
    assert type_in(repl, "/show tool 1") == "hi\n"
    assert "there is no tool call 2" in type_in(repl, "/show tool 2")
    assert "error: " in type_in(repl, "/show tool x")
