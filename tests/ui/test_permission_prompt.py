"""The question for leave: nothing that would run is hidden, and earlier keys do not answer it."""

import io

import pytest
from support.tools import SmallTool
from support.worlds import make_world

from llmchat.calls import Call
from llmchat.tools.permission import Reply
from llmchat.ui import tool_lines
from llmchat.ui.permission_prompt import asker, parse_reply

TOOL = SmallTool("python", "python", read_only=False)


def asked(tmp_path, call: Call, typed: str) -> tuple[Reply, str]:
    world = make_world(tmp_path, typed)
    out = io.StringIO()
    return asker(world, lambda: 80, out)(call, TOOL), out.getvalue()


@pytest.mark.parametrize(
    ("line", "reply"),
    [
        ("y\n", Reply("once")),
        ("yes\n", Reply("once")),
        ("a\n", Reply("session")),
        ("A\n", Reply("always")),
        ("n\n", Reply("no")),
        ("n the file is secret\n", Reply("no", "the file is secret")),
        ("no, use another\n", Reply("no", "use another")),
        ("", Reply("no")),
        ("\n", None),
        ("yep\n", None),
        ("Y\n", None),
        ("ja\n", None),
    ],
)
def test_an_answer_is_read(line: str, reply: Reply | None):
    assert parse_reply(line) == reply


def test_an_unclear_answer_asks_again(tmp_path):
    reply, shown = asked(tmp_path, Call("1", "python", {"code": "1"}), "what\n\ny\n")
    assert reply.answer == "once"
    assert shown.count("run it?") == 3


def test_code_is_shown_whole(tmp_path):
    code = "import os\nfor name in os.listdir():\n    print(name)"
    _, shown = asked(tmp_path, Call("1", "python", {"code": code}), "n\n")
    assert "    import os\n    for name in os.listdir():\n        print(name)\n" in shown


def test_the_rest_of_a_long_call_can_be_read_before_the_answer(tmp_path):
    code = "\n".join(f"print({number})" for number in range(100))
    reply, shown = asked(tmp_path, Call("1", "python", {"code": code}), "v\nn\n")
    assert reply.answer == "no"
    before, _, after = shown.partition("run it?")
    assert "print(99)" not in before and "the other" in before
    assert "print(99)" in after


def test_control_characters_of_a_call_do_not_reach_the_terminal(tmp_path):
    call = Call("1", "python", {"code": "x\n\x1b[2J\u202etxt"})
    _, shown = asked(tmp_path, call, "n\n")
    assert "\x1b" not in shown and "\u202e" not in shown
    assert "\x1b" not in tool_lines.started(call, 1)


def test_a_call_that_changes_something_is_allowed_for_ever_with_its_arguments_only(tmp_path):
    _, shown = asked(tmp_path, Call("1", "python", {"code": "1"}), "n\n")
    assert "always allow exactly this call" in shown


def test_a_short_call_fits_its_line():
    assert tool_lines.is_whole(Call("1", "clock", {"timezone": "UTC"}))
    assert not tool_lines.is_whole(Call("1", "python", {"code": "a\nb"}))
    assert not tool_lines.is_whole(Call("1", "python", {"code": "a" * 100}))
