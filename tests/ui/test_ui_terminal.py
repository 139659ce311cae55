"""The REPL in a real pseudo-terminal, driven key by key."""

import os
import signal
import sqlite3
import sys
import termios
from collections.abc import Iterator
from pathlib import Path

import pexpect
import pytest
from support.repl_terminal import DRIVER, ready, start

from llmchat.memory.facts import Facts

CTRL_C, CTRL_D, ALT_ENTER, CTRL_J = "\x03", "\x04", "\x1b\r", "\n"
PASTE_BEGIN, PASTE_END = "\x1b[200~", "\x1b[201~"


@pytest.fixture
def child(tmp_path: Path) -> "Iterator[pexpect.spawn[str]]":
    process = start(tmp_path)
    yield process
    process.close(force=True)


def test_ask_and_leave(child: "pexpect.spawn[str]") -> None:
    child.send("hello\r")
    child.expect("first answer")
    ready(child)
    child.send(CTRL_D)
    child.expect_exact("LEFT WITH 0 [('user', 5), ('assistant', 12)]")
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == 0


def test_ctrl_c_keeps_the_partial_answer_and_the_chat_goes_on(child: "pexpect.spawn[str]") -> None:
    child.send("one\r")
    child.expect("first answer")
    ready(child)
    child.send("two\r")
    child.expect("word word word")
    child.send(CTRL_C)
    child.expect_exact("[stopped; /continue resumes it]")
    ready(child)
    child.send("three\r")
    child.expect("third answer")
    ready(child)
    child.send("/exit\r")
    child.expect(
        r"LEFT WITH 0 \[\('user', 3\), \('assistant', 12\), "
        r"\('user', 3\), \('assistant', (\d+)\), \('user', 5\), \('assistant', 12\)\]"
    )
    assert 10 < int(child.match[1]) < 2000


def test_ctrl_c_clears_then_hints_then_leaves(child: "pexpect.spawn[str]") -> None:
    child.send("half a question")
    child.expect("half a question")
    child.send(CTRL_C)
    child.send(CTRL_C)
    child.expect("press Ctrl-C again")
    ready(child)
    child.send(CTRL_C)
    child.expect_exact("LEFT WITH 0 []")


@pytest.mark.parametrize("new_line", [ALT_ENTER, CTRL_J])
def test_more_than_one_line(child: "pexpect.spawn[str]", new_line: str) -> None:
    child.send(f"a{new_line}bc\r")
    child.expect("first answer")
    ready(child)
    child.send(CTRL_D)
    child.expect_exact("LEFT WITH 0 [('user', 4), ")


def test_a_paste_with_line_ends_does_not_send_itself(child: "pexpect.spawn[str]") -> None:
    child.send(f"{PASTE_BEGIN}one\rtwo\rthree{PASTE_END}")
    child.expect("three")
    child.send(" four\r")
    child.expect("first answer")
    ready(child)
    child.send(CTRL_D)
    child.expect_exact(f"LEFT WITH 0 [('user', {len('one two three four')}), ('assistant', 12)]")


def test_a_paste_with_its_own_end_mark_does_not_send_itself(child: "pexpect.spawn[str]") -> None:
    child.send(f"{PASTE_BEGIN}one{PASTE_END}two\r{PASTE_END}")
    child.expect("two")
    child.send("three\r")
    child.expect("first answer")
    ready(child)
    child.send(CTRL_D)
    child.expect_exact(f"LEFT WITH 0 [('user', {len('onetwo three')}), ('assistant', 12)]")


def test_a_block_takes_line_ends_until_it_is_closed(child: "pexpect.spawn[str]") -> None:
    child.send('"""\rfirst\rsecond\r"""\r')
    child.expect("first answer")
    ready(child)
    child.send(CTRL_D)
    child.expect_exact(f"LEFT WITH 0 [('user', {len('first second')}), ")


def test_commands_and_completion(child: "pexpect.spawn[str]") -> None:
    child.send("/set temp\t")
    child.expect("erature")
    child.send(" 1.25\r")
    child.expect(r"temperature +1\.25")
    ready(child)
    child.send("/mod\t")
    child.expect("el")
    child.send(" nowhere\r")
    child.expect_exact("error: no model is called `nowhere`")
    ready(child)
    child.send("hello\r")
    child.expect("first answer")
    ready(child)
    child.send("/undo\r")
    child.expect("back to the beginning")
    ready(child)
    child.send(CTRL_D)
    child.expect_exact("LEFT WITH 0 []")


def test_what_was_typed_is_there_again_the_next_time(tmp_path: Path) -> None:
    for keys in ("remember me\r", "\x1b[A\r"):
        child = start(tmp_path)
        child.send(keys)
        child.expect("first answer")
        ready(child)
        child.send(CTRL_D)
        child.expect_exact(f"LEFT WITH 0 [('user', {len('remember me')}), ")
        child.close()


def test_a_narrow_window(tmp_path: Path) -> None:
    child = start(tmp_path, size=(12, 40))
    child.send("hello\r")
    child.expect("first answer")
    ready(child)
    child.send(CTRL_D)
    child.expect_exact("LEFT WITH 0 [('user', 5)")
    child.close()


def test_a_dumb_terminal_gets_no_control_characters(tmp_path: Path) -> None:
    child = pexpect.spawn(
        sys.executable,
        [str(DRIVER), str(tmp_path)],
        encoding="utf-8",
        timeout=20,
        env={**os.environ, "TERM": "dumb"},
    )
    seen = []
    for line, answer in (
        ("", "/help for commands"),
        ("hello\r", "first answer"),
        ("/context\r", "reserved for the answer"),
        (CTRL_D, "LEFT WITH 0"),
    ):
        child.send(line)
        child.expect_exact(answer)
        seen.append(child.before)
        if line != CTRL_D:
            # Enter is a line end, not a key, until the prompt has the terminal.
            child.expect_exact("> ")
            seen.append(child.before)
    assert not {char for text in seen for char in text if ord(char) < 32} - set("\r\n\t"), seen


def test_plain_answers_have_no_control_characters(tmp_path: Path) -> None:
    child = start(tmp_path, "--plain")
    child.send("hello\r")
    child.expect_exact("first answer\r\n\r\n")
    ready(child)
    child.send(CTRL_D)
    child.expect_exact("LEFT WITH 0")


def test_arrows_on_an_empty_line_show_other_answers(child: "pexpect.spawn[str]") -> None:
    child.send("one\r")
    child.expect("first answer")
    ready(child)
    child.send("/regen\r")
    child.expect("word word")
    child.send(CTRL_C)
    ready(child)
    child.send("\x1b[D")
    child.expect_exact("answer 1 of 2:")
    child.expect("first answer")
    ready(child)
    child.send("\x1b[C")
    child.expect_exact("answer 2 of 2:")
    ready(child)
    child.send(CTRL_D)
    child.expect_exact("LEFT WITH 0")


def test_an_offer_is_taken_with_one_key(tmp_path: Path) -> None:
    """A message too long for the window: taken back by pressing 1, without Enter."""
    child = start(tmp_path)
    child.send(f"{PASTE_BEGIN}{'word ' * 4100}{PASTE_END}")
    child.send("\r")
    child.expect_exact("error: the last message needs")
    child.expect_exact("[1] remove the last message  [Enter] nothing")
    ready(child)
    child.send("1")
    ready(child)
    child.send("short\r")
    child.expect("first answer")
    ready(child)
    child.send(CTRL_D)
    child.expect_exact("LEFT WITH 0 [('user', 5), ('assistant', 12)]")


@pytest.mark.parametrize(
    ("keys", "shown"),
    [
        ("/set temperature 1.25\r", r"temperature +1\.25"),
        ("9 lives\r", "first answer"),
        ("x\x7f1\r", "first answer"),
    ],
    ids=["command", "number-beyond", "typed-and-deleted"],
)
def test_another_key_than_an_offer_belongs_to_the_line(
    tmp_path: Path, keys: str, shown: str
) -> None:
    child = start(tmp_path)
    child.send(f"{PASTE_BEGIN}{'word ' * 4100}{PASTE_END}")
    child.send("\r")
    child.expect_exact("[1] remove the last message  [Enter] nothing")
    ready(child)
    child.send(keys)
    child.expect(shown)
    ready(child)
    child.send(CTRL_D)
    child.expect_exact("LEFT WITH 0 [('user', 20499)")


def test_keys_during_an_answer_wait_and_do_not_disturb_it(child: "pexpect.spawn[str]") -> None:
    child.send("one\r")
    child.expect("first answer")
    ready(child)
    child.send("two\r")
    child.expect("word word word")
    child.send("typed ahead")
    child.expect_exact("END")
    assert "typed" not in child.before
    child.expect("typed ahead")
    child.send("\r")
    child.expect("third answer")
    ready(child)
    child.send(CTRL_D)
    child.expect_exact("('user', 11), ('assistant', 12)]")


def test_enter_takes_what_a_search_found_and_ctrl_c_only_leaves_the_search(
    child: "pexpect.spawn[str]",
) -> None:
    child.send("a fox in the snow\r")
    child.expect("first answer")
    ready(child)
    child.send("\x12fox")
    child.expect_exact(" in the snow")
    child.send("\r")
    child.send("!\r")
    child.expect("word word word")
    ready(child)
    child.send("kept text\x12fox")
    child.expect_exact(" in the snow")
    child.send(CTRL_C)
    child.send(" and more\r")
    child.expect("third answer")
    ready(child)
    child.send(CTRL_D)
    child.expect_exact("LEFT WITH 0 [('user', 17), ")
    child.expect_exact("('user', 18), ")
    child.expect_exact(f"('user', {len('kept text and more')}), ")


def test_a_command_of_the_shell_offers_its_output(child: "pexpect.spawn[str]") -> None:
    child.send("!echo from the shell\r")
    child.expect_exact("from the shell")
    child.expect_exact("[1] attach the output (")
    ready(child)
    child.send("1")
    child.expect_exact("attached; it goes with your next message")
    ready(child)
    child.send("/context\r")
    child.send(CTRL_D)
    child.expect_exact("LEFT WITH 0 []")


def test_a_file_that_is_mentioned_goes_with_the_message(tmp_path: Path) -> None:
    notes = tmp_path / "notes.txt"
    notes.write_text("The password is swordfish.")
    child = start(tmp_path, size=(24, 250))
    child.send(f"Read @{notes}\r")
    child.expect("first answer")
    ready(child)
    child.send("/context\r")
    child.expect_exact("notes.txt")
    ready(child)
    (tmp_path / "bad.bin").write_bytes(b"\xff\xfe")
    child.send(f"Read @{tmp_path / 'bad.bin'}\r")
    child.expect_exact("is not UTF-8 text: byte 0xff in line 1")
    child.expect_exact(f"Read @{tmp_path / 'bad.bin'}")
    child.send(CTRL_C)
    child.send(CTRL_D)
    child.expect_exact("LEFT WITH 0 [('user', ")


def test_a_long_paste_collapses_and_is_sent_whole(child: "pexpect.spawn[str]") -> None:
    child.send(PASTE_BEGIN + "a line\n" * 50 + PASTE_END)
    child.expect_exact("[50 lines, ")
    child.send("\r")
    child.expect("first answer")
    ready(child)
    child.send(CTRL_D)
    child.expect_exact("LEFT WITH 0 [('user', 349), ")


def test_vi_keys_work_where_they_are_asked_for(tmp_path: Path) -> None:
    child = start(tmp_path, "--vi")
    child.send("hello world\x1b0cegood\r")
    child.expect("first answer")
    ready(child)
    child.send(CTRL_D)
    child.expect_exact(f"LEFT WITH 0 [('user', {len('good world')}), ")


@pytest.mark.parametrize("typed", ["", "two\r"])
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_a_signal_ends_the_chat_in_order(
    typed: str, number: int, code: int, child: "pexpect.spawn[str]", tmp_path: Path
) -> None:
    child.send("one\r")
    child.expect("first answer")
    ready(child)
    if typed:
        child.send(typed)
        child.expect("word word word")
    child.kill(number)
    child.expect(pexpect.EOF)
    child.wait()
    cooked = termios.ECHO | termios.ICANON | termios.ISIG
    assert child.exitstatus == code and termios.tcgetattr(child.child_fd)[3] & cooked == cooked
    with sqlite3.connect(tmp_path / "data" / "history.db") as stored:
        last = stored.execute(
            "SELECT role, state FROM messages ORDER BY id DESC LIMIT 1"
        ).fetchone()
    assert last == ("assistant", "cancelled" if typed else "complete")


def test_ctrl_z_suspends_and_fg_goes_on(tmp_path: Path) -> None:
    child = pexpect.spawn(
        "bash",
        ["--norc", "-i"],
        encoding="utf-8",
        timeout=20,
        env={**os.environ, "TERM": "xterm-256color", "PS1": "SHELL$ "},
    )
    child.expect_exact("SHELL$ ")
    child.send(f"PROMPT_TOOLKIT_NO_CPR=1 {sys.executable} {DRIVER} {tmp_path}\r")
    child.expect("/help for commands")
    ready(child)
    child.send("hel\x1a")
    child.expect("Stopped")
    child.send("fg\r")
    child.expect("hel")
    child.send("lo\r")
    child.expect("first answer")
    ready(child)
    child.send(CTRL_D)
    child.expect_exact("LEFT WITH 0 [('user', 5), ('assistant', 12)]")
    child.close(force=True)


def test_facts_are_proposed_at_the_end_and_confirmed_one_by_one(tmp_path: Path) -> None:
    child = start(tmp_path, "--memory")
    child.send("I live in Graz and have a dog.\r")
    child.expect("first answer")
    ready(child)
    child.send(CTRL_D)
    child.expect_exact("remember `The user lives in Graz.`? [y/N] ")
    child.send("y\n")
    child.expect_exact("remember `The user has a dog.`? [y/N] ")
    child.send("n\n")
    child.expect_exact("LEFT WITH 0")
    facts = Facts(tmp_path / "data" / "memory.sqlite").all()
    assert [fact.text for fact in facts] == ["The user lives in Graz."]


@pytest.mark.slow
def test_ctrl_c_declines_all_proposals(tmp_path: Path) -> None:
    child = start(tmp_path, "--memory")
    child.send("I live in Graz and have a dog.\r")
    child.expect("first answer")
    ready(child)
    child.send("/exit\r")
    child.expect_exact("[y/N] ")
    child.send(CTRL_C)
    child.expect_exact("LEFT WITH 0")
    assert not (tmp_path / "data" / "memory.sqlite").exists()
