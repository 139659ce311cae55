"""What a model is offered, and what becomes of its calls."""

import pytest
from support.tools import SmallTool

from llmchat.calls import Call
from llmchat.errors import UsageError
from llmchat.tools import ToolError
from llmchat.tools.permission import Permissions
from llmchat.tools.toolbox import DESCRIBE, Toolbox, cut, first_line


def words(text: str) -> int:
    return len(text.split())


def box(*tools, allow=("echo",), **more) -> Toolbox:
    return Toolbox(tools or (SmallTool(),), Permissions(None, allow), **more)


def call(text: str = "hi", name: str = "echo") -> Call:
    return Call("1", name, {"text": text})


def test_a_call_that_is_allowed_runs():
    result = box().run(call("hello"), words, 1000)
    assert (result.text, result.allowed, result.error) == ("hello", True, "")


def test_a_call_that_is_not_allowed_does_not_run_and_the_model_learns_why():
    tool = SmallTool()
    result = box(tool, allow=()).run(call(), words, 1000)
    assert not tool.calls and not result.allowed
    assert "did not allow" in result.text


def test_an_unknown_tool_is_an_error_for_the_model():
    result = box().run(call(name="other"), words, 1000)
    assert result.text == "error: there is no tool `other`"


def test_a_tool_that_is_off_is_neither_offered_nor_run():
    tool = SmallTool()
    tools = box(tool)
    tools.turn_off("echo")
    assert tools.request(words, 1000) is None
    assert tools.run(call(), words, 1000).error
    assert not tool.calls
    tools.turn_on("echo")
    assert tools.request(words, 1000).names == ("echo",)


def test_a_failing_tool_is_one_line():
    def fail(arguments):
        raise ToolError("the disk is full")

    result = box(SmallTool(work=fail)).run(call(), words, 1000)
    assert (result.text, result.error) == ("error: the disk is full", "the disk is full")


def test_a_long_result_is_cut_to_a_fraction_of_the_window_and_kept_whole():
    long = "word " * 1000
    result = box(SmallTool(work=lambda arguments: long)).run(call(), words, 400)
    assert words(result.text) <= 100 + 7
    assert "more characters were left out" in result.text
    assert result.whole.strip() == long.strip()


def test_a_short_text_is_not_cut():
    assert cut("a b c", 3, words) == "a b c"


@pytest.mark.parametrize("tokens", [1, 10, 100])
def test_a_cut_text_fits(tokens):
    kept = cut("x " * 5000, tokens, words).rpartition("\n[")[0]
    assert 0 < words(kept) <= tokens


MANY = [
    SmallTool(f"big_{number}", "big", description=f"Tool {number}. " + "more words " * 50)
    for number in range(20)
]


def test_large_definitions_become_names_with_a_line_each():
    request = Toolbox(MANY, Permissions(None, ["big"])).request(words, 1000)
    shown = {tool["function"]["name"]: tool["function"] for tool in request.offered}
    assert DESCRIBE in shown and shown["big_3"]["description"] == "Tool 3"
    # The arguments of a call are still bound by the whole schema.
    assert request.tools[3]["function"]["parameters"] == MANY[3].parameters


def test_described_tools_are_offered_whole_afterwards():
    tools = Toolbox(MANY, Permissions(None, ["big"]))
    result = tools.run(Call("1", DESCRIBE, {"name": "big_3"}), words, 1000)
    assert '"parameters"' in result.text
    shown = {
        tool["function"]["name"]: tool["function"] for tool in tools.request(words, 1000).shown
    }
    assert shown["big_3"]["description"] == MANY[3].description
    assert shown["big_4"]["description"] == "Tool 4"


def test_describing_an_unknown_tool_is_an_error():
    tools = Toolbox(MANY, Permissions(None, ["big"]))
    assert tools.run(Call("1", DESCRIBE, {"name": "x"}), words, 1000).error


def test_two_servers_cannot_share_a_name():
    with pytest.raises(UsageError, match="has the name"):
        box(SmallTool(), SmallTool("echo", "echo", "server"))


def test_a_server_cannot_take_the_leave_of_a_built_in_group():
    with pytest.raises(UsageError, match="has the name"):
        box(SmallTool("files_read", "files"), SmallTool("files_other", "files", "server"))


def test_a_description_is_shortened_to_its_first_sentence():
    assert first_line("Read a file. It must be text.") == "Read a file"
    assert len(first_line("x" * 500)) == 100
