"""Which servers a chat starts: those of --mcp, and those of mcp.json that -T names."""

import json
from pathlib import Path

import msgspec
import pytest
from support.mcp_clients import entry, mark, marked, until
from support.worlds import make_world

from llmchat.errors import UsageError
from llmchat.settings import World, resolve
from llmchat.tools.mcp import Server
from llmchat.tools.opening import Progress, open_toolbox
from llmchat.tools.running import run


def written(path: Path, **servers: Server) -> str:
    keys = ("command", "args", "env", "disabled")
    table = {
        name: {key: value for key, value in msgspec.to_builtins(server).items() if key in keys}
        for name, server in servers.items()
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"mcpServers": table}), "utf-8")
    return str(path)


def offered(
    world: World, progress: Progress | None = None, **flags: list[str]
) -> tuple[list[str], list[str]]:
    """The groups of the tools that a chat offers, and the notes."""
    with open_toolbox(world, resolve(world, flags), progress=progress) as box:
        return sorted({tool.group for tool in box.tools}), box.take_notes()


def test_all_servers_of_a_flag_start_but_disabled_ones(tmp_path: Path) -> None:
    off = msgspec.structs.replace(entry(), disabled=True)
    file = written(tmp_path / "a.json", one=entry(), two=entry(), off=off)
    world = make_world(tmp_path)
    assert offered(world, mcp=[file]) == (["one", "two"], [])
    assert offered(world, mcp=[file], tool=["off"]) == (["off", "one", "two"], [])


def test_servers_of_the_config_folder_start_where_they_are_named(tmp_path: Path) -> None:
    world, trace = make_world(tmp_path), tmp_path / "trace"
    touch = Server(command="touch", args=(str(trace),))
    written(world.config / "mcp.json", one=entry(), touch=touch)
    assert offered(world) == ([], []) and offered(world, tool=["one"]) == (["one"], [])
    assert not trace.exists()
    with pytest.raises(UsageError, match="there is no tool `none`"):
        offered(world, tool=["none"])


def test_servers_start_at_the_same_time(tmp_path: Path) -> None:
    """The second one is asked while the first one still hangs. Leaving then ends both."""
    value, record = mark(), tmp_path / "record"
    servers = {"a": entry("hangs", MARK=value), "b": entry(record=record, MARK=value)}

    def leave(names: tuple[str, ...]) -> None:
        assert names == ("a",) and until(record.exists)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        offered(make_world(tmp_path), leave, mcp=[written(tmp_path / "a.json", **servers)])
    assert not marked(value)


def test_a_server_that_fails_is_a_note_and_the_chat_goes_on(tmp_path: Path) -> None:
    file = written(tmp_path / "a.json", bad=Server(command="nonono"), good=entry())
    assert offered(make_world(tmp_path), mcp=[file]) == (
        ["good"],
        ["MCP server `bad` did not start: the program `nonono` is not installed"],
    )


def test_a_server_that_stopped_is_started_again_by_turning_it_on(tmp_path: Path) -> None:
    world = make_world(tmp_path)
    flags = {"mcp": [written(tmp_path / "a.json", it=entry())]}
    with open_toolbox(world, resolve(world, flags)) as box:
        (dies,) = (tool for tool in box.tools if tool.name == "it_bye")
        assert "exit code 9" in run(dies, {}, timeout_s=20).error
        assert until(lambda: not box.tools) and "stopped" in box.take_notes()[0]
        box.turn_on("it")
        (echo,) = (tool for tool in box.tools if tool.name == "it_echo")
        assert run(echo, {"text": "hello"}, timeout_s=20).text == "hello"
