"""Lines that are not the model's: folded at words, dim or red where the terminal can show it."""

from pathlib import Path

import pytest
from rich.cells import cell_len
from support.worlds import make_world

from llmchat.errors import LlmchatError
from llmchat.ui import printing

LINE = (
    "the 12 oldest messages were not sent (window 2,048 tokens); "
    "/context shows 日本語の wide words too"
)


@pytest.mark.parametrize("width", [12, 25, 40, 80])
def test_notes_are_folded_at_words(width: int) -> None:
    rows = printing.wrap_line(LINE, width)
    assert " ".join(rows) == LINE and all(cell_len(row) <= width for row in rows)


def test_a_folded_line_goes_on_under_its_last_column() -> None:
    assert printing.wrap_line("/copy  [n]  Copy the last answer or a code block.", 34) == [
        "/copy  [n]  Copy the last answer",
        "            or a code block.",
    ]
    assert printing.wrap_line("  a  b", 40) == ["  a  b"]


@pytest.mark.parametrize(
    ("env", "start"),
    [({}, "\x1b[31merror"), ({"NO_COLOR": "1"}, "error"), ({"TERM": "dumb"}, "error")],
)
def test_errors_are_red_and_hints_dim(env: dict[str, str], start: str, tmp_path: Path) -> None:
    world = make_world(tmp_path, tty=True, **env)
    printing.print_error(world, LlmchatError("no \x1b[2Jsuch model\u202e", "try another"), 80)
    error, hint, _ = world.stdout.getvalue().split("\n")  # type: ignore[attr-defined]
    assert error.startswith(start) and "no [2Jsuch model" in error
    assert hint == ("hint: try another" if env.get("TERM") else "\x1b[2mhint: try another\x1b[0m")


def test_nothing_is_changed_in_a_pipe(tmp_path: Path) -> None:
    world = make_world(tmp_path)
    printing.print_error(world, LlmchatError("x" * 200, "y " * 50 + "z"), 20)
    assert world.stdout.getvalue() == f"error: {'x' * 200}\nhint: {'y ' * 50}z\n"  # type: ignore[attr-defined]


def test_a_question_of_a_saved_chat_has_the_mark_of_the_input_line(tmp_path: Path) -> None:
    for env, mark in (
        ({"TERM": "xterm-256color"}, "\x1b[1;38;5;30m>\x1b[0m "),
        ({"TERM": "xterm"}, "\x1b[1;36m>\x1b[0m "),
        ({"TERM": "xterm", "NO_COLOR": "1"}, "\x1b[1m>\x1b[0m "),
        ({"TERM": "dumb"}, "> "),
    ):
        world = make_world(tmp_path, tty=True, **env)
        printing.print_question(world, "one two \x1b[2Jthree", 12)
        assert world.stdout.getvalue() == f"{mark}one two\n  [2Jthree\n"  # type: ignore[attr-defined]
