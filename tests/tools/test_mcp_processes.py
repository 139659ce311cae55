"""No process of an MCP server outlives llmchat, however llmchat ends."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from support.mcp_clients import connected, entry, mark, marked, until
from support.openai_server import Told, serving

HOLD = Path(__file__).parent.parent / "support" / "hold_mcp.py"


class Holder:
    """A process that holds servers. `count` is the number of processes under it."""

    def __init__(self, home: Path, *behaviours: str):
        self.mark = mark()
        path = os.pathsep.join([str(HOLD.parent.parent), *sys.path])
        self.process = subprocess.Popen(
            [sys.executable, str(HOLD), str(home), *behaviours],
            env={**os.environ, "MARK": self.mark, "PYTHONPATH": path},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self.hears() == "ready"

    def hears(self) -> str:
        assert self.process.stdout
        return self.process.stdout.readline().strip()

    def says(self, line: str) -> None:
        assert self.process.stdin
        self.process.stdin.write(f"{line}\n")
        self.process.stdin.flush()

    @property
    def count(self) -> int:
        return len(marked(self.mark))


@pytest.mark.parametrize(
    ("number", "code"),
    [
        (signal.SIGINT, -signal.SIGINT),
        pytest.param(signal.SIGTERM, 128 + signal.SIGTERM, marks=pytest.mark.slow),
        pytest.param(signal.SIGHUP, 128 + signal.SIGHUP, marks=pytest.mark.slow),
    ],
    ids=["SIGINT", "SIGTERM", "SIGHUP"],
)
def test_a_signal_leaves_no_process(number: signal.Signals, code: int, tmp_path: Path) -> None:
    holder = Holder(tmp_path, "plain", "daemon")
    # Itself, two keepers, two servers and two that the second left in the background.
    assert until(lambda: holder.count == 7)
    holder.process.send_signal(number)
    assert holder.process.wait(20) == code and not holder.count


def test_a_kill_leaves_no_process(tmp_path: Path) -> None:
    holder = Holder(tmp_path, "stubborn", "daemon")
    assert until(lambda: holder.count == 7)
    holder.process.kill()
    assert holder.process.wait(20) == -signal.SIGKILL
    # Nobody is left to wait for the keepers.
    assert until(lambda: not holder.count)


@pytest.mark.slow
def test_an_error_leaves_no_process(tmp_path: Path) -> None:
    holder = Holder(tmp_path, "plain", "daemon")
    holder.says("error")
    assert holder.process.wait(20) == 1 and not holder.count


@pytest.mark.slow
def test_a_signal_in_a_call_leaves_no_process(tmp_path: Path) -> None:
    holder = Holder(tmp_path, "stubborn")
    holder.says("hang")
    assert holder.hears() == "hanging"
    holder.process.send_signal(signal.SIGTERM)
    assert holder.process.wait(20) == 128 + signal.SIGTERM and not holder.count


@pytest.mark.parametrize(
    ("behaviour", "ends"),
    [("heeding", ["end of stdin"]), ("stubborn", ["end of stdin", "SIGTERM"])],
)
def test_a_server_is_closed_by_no_more_than_it_takes(
    behaviour: str, ends: list[str], tmp_path: Path
) -> None:
    """By the end of its stdin; one that does not heed that gets SIGTERM, and then SIGKILL."""
    value, record = mark(), tmp_path / "record"
    with connected(tmp_path, it=entry(behaviour, record, MARK=value)):
        pass
    assert not marked(value)
    lines = record.read_text("utf-8").splitlines()
    assert [line for line in lines if not line.startswith("{")] == ends


def test_ctrl_c_at_the_terminal_does_not_reach_a_server(tmp_path: Path) -> None:
    """A server runs in a session of its own, so that Ctrl-C stops a call and no more."""
    value = mark()
    with connected(tmp_path, it=entry(MARK=value)):
        sessions = {os.getsid(process) for process in marked(value)}
        assert os.getsid(0) not in sessions and len(sessions) == 1


def test_nothing_that_servers_do_reaches_the_terminal(tmp_path: Path) -> None:
    """Nor what the SDK logs about them."""
    with serving(lambda request: Told([b"{"], kind="application/json")) as (url, _):
        holder = Holder(tmp_path, "nonsense", "error", "exits", "stderr", url)
        assert holder.process.communicate("leave\n", 20) == ("", "")
