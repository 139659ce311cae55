"""What may stand in the input line: long pastes, files, commands of the shell."""

import os
import signal
import sys
import threading
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prompt_toolkit.history import InMemoryHistory
from support.worlds import make_world

from llmchat.settings import World
from llmchat.ui import shell
from llmchat.ui.mentions import completions, mentioned
from llmchat.ui.pastes import ExpandedHistory, Pastes

LONG = "a line\n" * 200


def test_a_long_paste_is_shown_by_its_size_and_sent_whole() -> None:
    pastes = Pastes(lambda text: 2613)
    assert pastes.shorten(LONG) == "[200 lines, 2,613 tokens]"
    assert pastes.expand("Summarise [200 lines, 2,613 tokens] please") == f"Summarise {LONG} please"
    assert pastes.shorten(LONG.upper()) == "[200 lines, 2,613 tokens #2]"
    assert pastes.expand("[200 lines, 2,613 tokens #2]") == LONG.upper()
    pastes.forget()
    assert pastes.expand("[200 lines, 2,613 tokens]") == "[200 lines, 2,613 tokens]"


def test_before_the_model_is_there_a_paste_is_measured_in_characters() -> None:
    assert Pastes().shorten("x" * 5000) == "[1 line, 5,000 characters]"


@given(st.text(max_size=80))
def test_a_short_paste_stays_as_it_is(text: str) -> None:
    plain = text.replace("\r\n", "\n").replace("\r", "\n")
    if plain.count("\n") < 10:
        assert Pastes().shorten(text) == plain


def test_what_was_typed_is_kept_with_its_pastes() -> None:
    pastes, kept = Pastes(), InMemoryHistory()
    history = ExpandedHistory(kept, pastes)
    history.append_string(f"Read {pastes.shorten(LONG)}")
    assert list(kept.load_history_strings()) == [f"Read {LONG}"] == history.get_strings()


def test_files_are_mentioned_by_name_and_everything_else_is_text(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("notes.txt", "two words.md", "data.csv"):
        (tmp_path / name).write_text("x")
    text = (
        'Compare @notes.txt, @"two words.md" and (@data.csv); ask @john or me@notes.txt. '
        "@notes.txt again, @missing.txt too."
    )
    assert mentioned(text) == ["notes.txt", "two words.md"]
    assert mentioned("Read @data.csv.") == ["data.csv"]
    assert mentioned(f"@{'x' * 9000} @~nobody/x @\0") == []
    assert [path for path, _ in completions("What is in @no")] == ["notes.txt"]
    assert list(completions("mail me@no")) == []


@pytest.fixture
def world(tmp_path: Path) -> World:
    return make_world(tmp_path, SHELL="/bin/sh")


def test_a_command_shows_and_keeps_what_it_prints(world: World) -> None:
    shown: list[str] = []
    output = shell.run("echo out; echo err >&2; exit 3", world, shown.append)
    assert output == shell.Output("out\nerr\n", 3) and "".join(shown) == "out\nerr\n"


def test_a_flood_is_shown_whole_and_kept_in_part(world: World) -> None:
    shown = 0

    def show(text: str) -> None:
        nonlocal shown
        shown += len(text)

    output = shell.run(f"{sys.executable} -c \"print('x' * 5_000_000)\"", world, show)
    assert (
        shown == 5_000_001 and output.cut and shell.KEPT <= len(output.text) < shell.KEPT + 70_000
    )


def test_bytes_that_are_no_text_and_a_shell_that_is_not_there(world: World, tmp_path: Path) -> None:
    assert "\N{REPLACEMENT CHARACTER}" in shell.run(r"printf '\377'", world, lambda text: None).text
    with pytest.raises(Exception, match="/no/shell cannot be started"):
        shell.run("x", make_world(tmp_path, SHELL="/no/shell"), lambda text: None)


def test_ctrl_c_ends_a_command_and_all_that_it_started(world: World) -> None:
    children: list[int] = []

    def show(text: str) -> None:
        children.extend(map(int, text.split()))
        threading.Timer(0.05, lambda: os.kill(os.getpid(), signal.SIGINT)).start()

    with pytest.raises(KeyboardInterrupt):
        shell.run("sleep 60 & echo $!; wait", world, show)
    until = time.monotonic() + 20
    while _runs(children[0]):
        assert time.monotonic() < until
        time.sleep(0.01)


def _runs(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().split()[2] != "Z"
    except FileNotFoundError:
        return False


def test_colours_and_titles_of_a_command_are_left_out(tmp_path: Path) -> None:
    shown: list[str] = []
    command = r"""printf '\033[1;34mblue'; printf '\033'; printf '[0m \033]0;title\007plain\n'"""
    output = shell.run(command, make_world(tmp_path, SHELL="/bin/sh"), shown.append)
    assert output.text == "".join(shown) == "blue plain\n"
    assert shell._without_sequences("a\x1b]8;;http://b\x1b\\c\x1b]8;;\x1b\\") == ("ac", "")


@given(st.text(alphabet="\x1b[]()0;1mK\x07\\a", max_size=40), st.integers(0, 40))
def test_a_sequence_may_be_cut_anywhere(text: str, place: int) -> None:
    whole, rest = shell._without_sequences(text)
    first, begun = shell._without_sequences(text[:place])
    second, end = shell._without_sequences(begun + text[place:])
    assert (first + second, end) == (whole, rest)
