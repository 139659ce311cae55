"""The keeper ends a program and all that it started, in whatever way its parent ends."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from support.mcp_clients import mark, marked, until

from llmchat.process import keeper

# A shell that ignores SIGTERM, with a child in a session of its own, and an orphan.
# It goes on after `wait`: the kill of a child that it waits for may come first.
STUBBORN = (
    "trap '' TERM; setsid sleep 300 & (setsid sh -c 'trap \"\" TERM; sleep 300' &) ;"
    " wait; sleep 300"
)


def kept(parent: int, *command: str, **options: object) -> "subprocess.Popen[bytes]":
    line = [sys.executable, "-I", "-S", keeper.__file__, str(parent), *command]
    return subprocess.Popen(line, **options)  # type: ignore[call-overload, no-any-return]


@pytest.mark.parametrize(
    ("script", "code"), [("exit 0", 0), ("exit 3", 3), ("kill -9 $$", 137), ("kill -15 $$", 143)]
)
def test_the_exit_code_is_the_programs(script: str, code: int) -> None:
    assert kept(os.getpid(), "sh", "-c", script).wait() == code


def test_a_program_that_cannot_run_is_reported(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("no program")
    done = kept(os.getpid(), str(tmp_path / "text"), stderr=subprocess.PIPE)
    assert done.communicate()[1].endswith(b"text: Permission denied\n") and done.wait() == 126


def test_streams_belong_to_the_program_alone() -> None:
    process = kept(os.getpid(), "sh", "-c", "exec >&-; sleep 300", stdout=subprocess.PIPE, stdin=-1)
    assert process.stdout and process.stdout.read() == b""
    process.terminate()
    process.wait()


def test_what_an_ended_program_left_behind_is_ended() -> None:
    value = mark()
    environment = {**os.environ, "MARK": value}
    process = kept(os.getpid(), "sh", "-c", "setsid sleep 300 & exit 4", env=environment)
    assert process.wait() == 4 and not marked(value)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_ends_everything(number: signal.Signals) -> None:
    value = mark()
    process = kept(os.getpid(), "sh", "-c", STUBBORN, env={**os.environ, "MARK": value})
    assert until(lambda: len(marked(value)) >= 5)
    process.send_signal(number)
    assert process.wait() == 128 + signal.SIGKILL and not marked(value)


def test_a_killed_parent_takes_everything_with_it() -> None:
    value = mark()
    script = (
        "import os, subprocess, sys\n"
        "line = [sys.executable, '-I', '-S', sys.argv[1], str(os.getpid()), 'sh', '-c']\n"
        "subprocess.Popen([*line, sys.argv[2]]).wait()"
    )
    command = [sys.executable, "-I", "-S", "-c", script, keeper.__file__, STUBBORN]
    parent = subprocess.Popen(command, env={**os.environ, "MARK": value})
    assert until(lambda: len(marked(value)) >= 6)
    parent.kill()
    parent.wait()
    assert until(lambda: not marked(value))


def test_a_parent_that_is_gone_already_starts_nothing(tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    assert kept(1, "touch", str(trace)).wait() == 128 + signal.SIGTERM
    assert not trace.exists()
