"""`llmchat chat --mcp` as a process: notes, exit codes, and no process that is left behind."""

import json
import signal
import subprocess
from pathlib import Path

import pytest
from support.command_line import LLMCHAT, Run
from support.mcp_clients import entry, mark, marked, until

from llmchat.tools.mcp import Server

STORY = "Write a very long story about a fox."


def written(path: Path, **servers: Server) -> str:
    table = {
        name: {"command": server.command, "args": server.args, "env": server.env}
        for name, server in servers.items()
    }
    path.write_text(json.dumps({"mcpServers": table}), "utf-8")
    return str(path)


@pytest.mark.slow
def test_servers_that_fail_are_notes_and_the_answer_is_alone_on_stdout(
    smol: Run, tmp_path: Path
) -> None:
    value = mark()
    bad = Server(command="nonono")
    servers = {"good": entry("daemon", MARK=value), "bad": bad, "ill": entry("nonsense")}
    done = smol("chat", "--mcp", written(tmp_path / "mcp.json", **servers), "Say hello.")
    assert done.returncode == 0 and done.stdout.strip() and "\x1b" not in done.stdout
    notes = [line for line in done.stderr.splitlines() if "MCP server" in line]
    assert sorted(notes) == [
        "note: MCP server `bad` did not start: the program `nonono` is not installed",
        "note: MCP server `ill` did not start: it writes no MCP messages to stdout, but `bla bla`",
    ]
    assert not marked(value)


@pytest.mark.parametrize(
    ("number", "code"),
    [
        (signal.SIGTERM, 143),
        pytest.param(signal.SIGINT, 130, marks=pytest.mark.slow),
        pytest.param(signal.SIGHUP, 129, marks=pytest.mark.slow),
        pytest.param(signal.SIGKILL, -9, marks=pytest.mark.slow),
    ],
)
def test_a_signal_leaves_no_process(
    number: signal.Signals, code: int, smol: Run, env: dict[str, str], tmp_path: Path
) -> None:
    value = mark()
    file = written(tmp_path / "mcp.json", it=entry("daemon", MARK=value))
    process = subprocess.Popen(
        [*LLMCHAT, "chat", "--mcp", file, STORY],
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert until(lambda: len(marked(value)) == 4)
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == code and "Traceback" not in errors
    # After SIGKILL nobody waits for the keeper.
    assert until(lambda: not marked(value)) if code == -9 else not marked(value)


def test_a_wrong_file_is_one_line_before_anything_is_loaded(run: Run, tmp_path: Path) -> None:
    (tmp_path / "mcp.json").write_text("{")
    done = run("chat", "--mcp", str(tmp_path / "mcp.json"), "Say hello.")
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.startswith("error: mcp.json cannot be read: Expecting property name")
