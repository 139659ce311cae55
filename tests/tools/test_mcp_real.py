"""Real MCP servers from PyPI over stdio, and servers of both versions of the SDK over HTTP."""

import json
import socket
import subprocess
import sys
import threading
import venv
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Event

import pytest
from support.mcp_clients import call, connected, entry, mark, marked, until
from support.openai_server import Told, serving

from llmchat.tools import ToolError
from llmchat.tools.mcp import Server
from llmchat.tools.running import run

APP = Path(__file__).parent.parent / "support" / "mcp_sdk_server.py"
# The last releases, and the last with version 1 of the SDK and its protocol.
RELEASES = {
    "2026": (
        "mcp-server-time==2026.10.19",
        "mcp-server-git==2026.10.19",
        "mcp-server-fetch==2026.10.24",
    ),
    "2025": (
        "mcp-server-time==2025.9.25",
        "mcp-server-git==2025.12.18",
        "mcp-server-fetch==2025.4.7",
        "mcp<2",
    ),
}
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", params=RELEASES)
def programs(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The programs of an environment with the servers of a year."""
    folder = tmp_path_factory.mktemp(f"servers-{request.param}")
    venv.create(folder, with_pip=True)
    pip = [folder / "bin" / "python", "-m", "pip", "install", "--quiet"]
    subprocess.run([*pip, *RELEASES[request.param]], check=True)
    return folder / "bin"


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    folder = tmp_path / "repository"
    folder.mkdir()
    (folder / "a.txt").write_text("hello")
    git = ["git", "-C", str(folder), "-c", "user.name=n", "-c", "user.email=e@example.org"]
    for arguments in (["init", "-q"], ["add", "."], ["commit", "-qm", "Add a greeting"]):
        subprocess.run([*git, *arguments], check=True)
    return folder


def test_the_time_server(programs: Path, tmp_path: Path) -> None:
    server = Server(command=str(programs / "mcp-server-time"), args=("--local-timezone", "UTC"))
    with connected(tmp_path, time=server) as servers:
        assert [tool.name for tool in servers.tools] == [
            "time_get_current_time",
            "time_convert_time",
        ]
        zones = {"source_timezone": "Asia/Tokyo", "target_timezone": "Asia/Kolkata"}
        done = run(servers.tools[1], {"time": "16:30", **zones}, timeout_s=20)
        assert json.loads(done.text)["target"]["datetime"].endswith("T13:00:00+05:30")
        # The tool's schema is checked before the call, and its own errors are told.
        assert "required" in run(servers.tools[1], zones, timeout_s=20).error
        done = run(servers.tools[0], {"timezone": "Mars/Olympus"}, timeout_s=20)
        assert done.error and not done.text and servers.take_notes() == []


def test_the_git_server(programs: Path, repository: Path, tmp_path: Path) -> None:
    server = Server(
        command=str(programs / "mcp-server-git"), args=("--repository", str(repository))
    )
    with connected(tmp_path, git=server) as servers:
        names = [tool.name for tool in servers.tools]
        assert {"git_status", "git_log", "git_commit"} <= set(names) and len(names) >= 12
        where = {"repo_path": str(repository)}
        assert "Add a greeting" in call(servers, "git_log", "git", **where)
        (repository / "a.txt").write_text("goodbye")
        assert "+goodbye" in call(servers, "git_diff_unstaged", "git", **where)
        with pytest.raises(ToolError, match="outside the allowed repository"):
            call(servers, "git_log", "git", repo_path=str(tmp_path))


def test_the_fetch_server(programs: Path, tmp_path: Path) -> None:
    program = str(programs / "mcp-server-fetch")
    private = ["--allow-private-ips"] if _knows(program, "--allow-private-ips") else []
    page = Told([b"<html><body><h1>News</h1><p>It rains.</p></body></html>"], kind="text/html")
    server = Server(command=program, args=("--ignore-robots-txt", *private))
    with serving(lambda request: page) as (url, _), connected(tmp_path, fetch=server) as servers:
        assert [tool.name for tool in servers.tools] == ["fetch"]
        done = run(servers.tools[0], {"url": url}, timeout_s=60)
        assert "It rains." in done.text and done.untrusted and not done.error


def test_real_servers_leave_no_process_and_a_hostile_one_does_not_harm_them(
    programs: Path, tmp_path: Path
) -> None:
    value = mark()
    time = Server(
        command=str(programs / "mcp-server-time"),
        args=("--local-timezone", "UTC"),
        env={"MARK": value},
    )
    with connected(tmp_path, time=time, it=entry("nonsense"), daemon=entry("daemon")) as servers:
        assert "UTC" in call(servers, "get_current_time", "time", timezone="UTC")
        assert len(marked(value)) == 2
    assert not marked(value)


def _knows(program: str, option: str) -> bool:
    return option in subprocess.run([program, "--help"], capture_output=True, text=True).stdout


@contextmanager
def served(python: str, record: Path) -> Iterator[Server]:
    """A server of the SDK over HTTP."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = subprocess.Popen(
        [python, str(APP), str(record), str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        assert until(lambda: _listens(port))
        yield Server(url=f"http://127.0.0.1:{port}/mcp")
    finally:
        process.kill()
        process.wait()


def _listens(port: int) -> bool:
    with suppress(OSError), socket.create_connection(("127.0.0.1", port)):
        return True
    return False


def check_app(server: Server, tmp_path: Path, record: Path) -> None:
    """All that a server of the SDK can do with us: calls, cancellation, questions, new tools."""
    with connected(tmp_path, it=server) as servers:
        assert call(servers, "add", a=2, b=3) == "5"
        with pytest.raises(ToolError, match=r"not supported|no back-channel"):
            call(servers, "ask")
        stop = Event()
        threading.Timer(0.2, stop.set).start()
        with pytest.raises(ToolError, match="stopped"):
            servers.call("it", "hang", {}, stop)
        assert until(record.exists)
        assert call(servers, "grow") == "grown"
        assert until(lambda: "it_grown" in [tool.name for tool in servers.tools])
        assert servers.take_notes()[-1].endswith("changed its tools (new: grown)")


def test_a_server_of_the_sdk_over_http(programs: Path, tmp_path: Path) -> None:
    with served(str(programs / "python"), tmp_path / "record") as server:
        check_app(server, tmp_path, tmp_path / "record")


def test_a_server_of_the_sdk_over_stdio(programs: Path, tmp_path: Path) -> None:
    record = tmp_path / "record"
    server = Server(command=str(programs / "python"), args=(str(APP), str(record)))
    check_app(server, tmp_path, record)


def test_our_own_sdk_over_http(tmp_path: Path) -> None:
    with served(sys.executable, tmp_path / "record") as server:
        check_app(server, tmp_path, tmp_path / "record")
