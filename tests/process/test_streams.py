"""Streams as a shell hands them over: closed, not in UTF-8, or with a person at their end."""

import os
import subprocess
import sys
from pathlib import Path

import pexpect
import pytest
from support.worlds import make_world

from llmchat.errors import UsageError
from llmchat.process.streams import MOST_ASKED, decoded

LLMCHAT = f"{sys.executable} -m llmchat"


def shell(home: Path, command: str, stdin: bytes = b"") -> "subprocess.CompletedProcess[bytes]":
    env = {
        "HOME": str(home),
        "PATH": os.environ["PATH"],
        "LC_ALL": "C.UTF-8",
        "LLMCHAT_ENGINE": "scripted",
    }
    return subprocess.run(
        ["sh", "-c", command], input=stdin, capture_output=True, env=env, timeout=60
    )


@pytest.mark.parametrize("locale", ["C", "C.UTF-8"])
def test_bytes_that_are_not_utf_8_are_refused_with_their_place(locale: str, tmp_path: Path) -> None:
    done = shell(tmp_path, f"LC_ALL={locale} {LLMCHAT} chat --no-log", b"first line\ncaf\xe9\n")
    assert (done.returncode, done.stdout) == (2, b"")
    assert done.stderr.decode().splitlines() == [
        "error: stdin is not UTF-8 text: byte 0xe9 in line 2",
        "hint: convert it first, for example with `iconv -f latin1 -t utf-8`",
    ]


def test_an_argument_that_is_not_utf_8_is_refused(tmp_path: Path) -> None:
    env = {"HOME": str(tmp_path), "PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8"}
    command = [os.fsencode(sys.executable), b"-m", b"llmchat", b"chat", b"caf\xe9"]
    done = subprocess.run(
        command, capture_output=True, env=env, stdin=subprocess.DEVNULL, timeout=60
    )
    assert (done.returncode, done.stderr.decode()) == (
        2,
        "error: the argument `caf\N{REPLACEMENT CHARACTER}` is not UTF-8 text\n",
    )


def test_a_file_with_a_byte_order_mark_is_text() -> None:
    assert decoded(b"\xef\xbb\xbfone\r\ntwo\rthree", "x") == "one\ntwo\nthree"
    with pytest.raises(UsageError, match=r"x is not UTF-8 text: byte 0xff in line 1"):
        decoded(b"\xff\xfe", "x")


def test_a_closed_stdout_is_one_line(tmp_path: Path) -> None:
    done = shell(tmp_path, f"{LLMCHAT} --help >&-")
    assert done.returncode == 2 and done.stderr.decode().startswith(
        "error: stdout is closed, so nothing can be printed\nhint: "
    )


@pytest.mark.parametrize("closed", ["<&-", "2>&-", "<&- 2>&-"])
def test_a_closed_stdin_or_stderr_changes_no_answer(closed: str, tmp_path: Path) -> None:
    done = shell(tmp_path, f"{LLMCHAT} chat --no-log 'Hello there' {closed}")
    assert done.returncode == 0 and done.stdout.strip()


def test_a_long_value_is_not_echoed_whole(tmp_path: Path) -> None:
    done = shell(tmp_path, f"{LLMCHAT} chat -m {'x' * 20_000} hello")
    assert done.returncode == 3 and max(map(len, done.stderr.decode().splitlines())) < 500


def test_the_first_run_offers_the_default_model(tmp_path: Path) -> None:
    child = pexpect.spawn(
        sys.executable, ["-m", "llmchat"],
        env={"HOME": str(tmp_path), "PATH": os.environ["PATH"], "TERM": "xterm"},
        encoding="utf-8", timeout=60, dimensions=(24, 120),
    )  # fmt: skip
    child.expect_exact(
        "smollm2 is not on this machine. Download it now (93 MB, Apache-2.0)? [y/N] "
    )
    child.sendline("n")
    child.expect_exact("hint: `llmchat pull smollm2` downloads it")
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == 3


def test_nothing_is_offered_where_nobody_can_answer(tmp_path: Path) -> None:
    done = shell(tmp_path, f"unset LLMCHAT_ENGINE; {LLMCHAT} hello")
    assert done.returncode == 3 and done.stderr.decode().splitlines()[0].startswith(
        "error: `smollm2` is not pulled"
    )


def test_input_without_an_end_is_refused_within_bounded_memory(tmp_path: Path) -> None:
    done = shell(tmp_path, f"yes | {LLMCHAT} chat --no-log 'Hello'")
    assert (done.returncode, done.stderr.decode().splitlines()[0]) == (
        2,
        "error: stdin is too large; the limit is 32 MB",
    )
    done = shell(tmp_path, f"{LLMCHAT} chat --no-log -f /dev/zero 'Hello'")
    assert (done.returncode, done.stderr.decode().splitlines()[0]) == (
        2,
        "error: /dev/zero is too large; the limit is 32 MB",
    )


def test_a_file_that_is_too_large_is_refused_before_it_is_read(tmp_path: Path) -> None:
    with (tmp_path / "image").open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(
        UsageError, match=r"image is too large \(1,099,512 MB\); the limit is 32 MB"
    ):
        make_world(tmp_path).read_text(str(tmp_path / "image"), MOST_ASKED)


def test_a_pipe_can_be_attached(tmp_path: Path) -> None:
    done = shell(
        tmp_path,
        f"mkfifo {tmp_path}/pipe; echo text > {tmp_path}/pipe &"
        f" {LLMCHAT} chat --no-log --json -f {tmp_path}/pipe 'Hello'",
    )
    assert done.returncode == 0
