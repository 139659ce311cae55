"""The file that lists MCP servers: what other clients write is read, what is wrong is one line."""

import json
from pathlib import Path
from typing import Any

import hypothesis
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.worlds import make_world

from llmchat.errors import LlmchatError, UsageError
from llmchat.tools.mcp import Server, config_files, load_config, load_servers
from llmchat.tools.mcp.config import expand


def written(path: Path, servers: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"mcpServers": servers}), "utf-8")
    return path


def test_the_usual_file_is_read(tmp_path: Path) -> None:
    """Entries as Claude, Cursor, Cline, VS Code and Gemini write them."""
    path = written(
        tmp_path / "mcp.json",
        {
            "git": {"command": "uvx", "args": ["mcp-server-git"], "env": {"A": "b", "N": 3}},
            "docs": {"type": "http", "url": "https://x.example/mcp", "headers": {"A": "${B}"}},
            "old": {"type": "streamableHttp", "url": "http://y.example", "disabled": True},
            "off": {"command": "x", "enabled": False, "alwaysAllow": ["a"], "timeout": 60},
            "few": {"httpUrl": "http://z.example", "includeTools": ["a"], "disabledTools": ["b"]},
            "odd": {"type": "stdio", "command": "x", "cwd": "~", "colour": "red"},
        },
    )
    file = str(path)
    assert load_config(path) == {
        "git": Server(command="uvx", args=("mcp-server-git",), env={"A": "b", "N": "3"}, file=file),
        "docs": Server(url="https://x.example/mcp", headers={"A": "${B}"}, file=file),
        "old": Server(url="http://y.example", disabled=True, file=file),
        "off": Server(command="x", disabled=True, file=file),
        "few": Server(url="http://z.example", include=("a",), exclude=("b",), file=file),
        "odd": Server(command="x", cwd="~", ignored=("colour",), file=file),
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "cannot be read: Expecting property name"),
        ("", "cannot be read: Expecting value"),
        ("\xff", "cannot be read: it is not text in UTF-8"),
        ("[" * 100_000, "cannot be read: it is nested too deeply"),
        ("[]", "there is no object `mcpServers` in it"),
        ('{"servers": {}}', "there is no object `mcpServers` in it"),
        ('{"mcpServers": {"a": {"command": "x"}, "a": {}}}', "`a` is in it twice"),
        ('{"mcpServers": {"a": []}}', "MCP server `a` must be an object"),
        ('{"mcpServers": {"": {"command": "x"}}}', "MCP server `` must have a name"),
        ('{"mcpServers": {"a\\u001b[2J": {}}}', "must have a name of 1 to 64 printable"),
        ('{"mcpServers": {"a": {}}}', "MCP server `a` needs either `command` or `url`"),
        ('{"mcpServers": {"a": {"command": "x", "url": "y"}}}', "has two ways to start"),
        ('{"mcpServers": {"a": {"command": 3}}}', "needs text as its `command`"),
        ('{"mcpServers": {"a": {"command": "x\\u0000"}}}', "a NUL character in its `command`"),
        ('{"mcpServers": {"a": {"command": "x", "args": "y"}}}', "a list of texts as its `args`"),
        ('{"mcpServers": {"a": {"command": "x", "args": [1]}}}', "a list of texts as its `args`"),
        ('{"mcpServers": {"a": {"command": "x", "env": []}}}', "an object of texts as its `env`"),
        ('{"mcpServers": {"a": {"command": "x", "env": {"B": {}}}}}', "an object of texts"),
        ('{"mcpServers": {"a": {"command": "x", "env": {"": "b"}}}}', "an invalid character"),
        ('{"mcpServers": {"a": {"command": "x", "disabled": "no"}}}', "needs true or false"),
        ('{"mcpServers": {"a": {"type": "sse", "url": "x"}}}', "`a` uses SSE, which MCP has"),
        ('{"mcpServers": {"a": {"type": "ws", "url": "x"}}}', "has the unknown type `ws`"),
        ('{"mcpServers": {"a": {"type": "http", "command": "x"}}}', "`http` but no `url`"),
        ('{"mcpServers": {"a": {"type": "stdio", "url": "x"}}}', "`stdio` but no `command`"),
    ],
)
def test_a_wrong_file_is_one_line(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "mcp.json"
    path.write_bytes(text.encode("latin1"))
    with pytest.raises(UsageError) as caught:
        load_config(path)
    assert message in caught.value.message and "mcp.json" in caught.value.message
    assert len(caught.value.message.splitlines()) == 1


def test_a_missing_and_a_large_file_are_one_line(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"none\.json cannot be read: No such file"):
        load_config(tmp_path / "none.json")
    large = tmp_path / "large.json"
    large.write_bytes(b" " * 2_000_000)
    with pytest.raises(UsageError, match="it is larger than 1 MB"):
        load_config(large)


_KEYS = st.sampled_from(
    ["command", "args", "env", "cwd", "type", "url", "headers", "disabled", "enabled", "x"]
)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_KEYS, inner, max_size=4),
    max_leaves=8,
)


@given(entry=json_values)
@hypothesis.settings(max_examples=40)
def test_any_entry_is_read_or_refused(entry: Any, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = written(tmp_path_factory.getbasetemp() / "any.json", {"a": entry})
    try:
        server = load_config(path)["a"]
    except LlmchatError:
        return
    assert bool(server.command) != bool(server.url)


def test_files_come_from_the_config_folder_and_the_flags(tmp_path: Path) -> None:
    world = make_world(tmp_path)
    assert load_servers(world) == {} and config_files(world) == []
    written(world.config / "mcp.json", {"a": {"command": "own"}, "b": {"command": "own"}})
    one = written(tmp_path / "one.json", {"a": {"command": "flag"}})
    servers = load_servers(world, [str(one)])
    assert {name: server.command for name, server in servers.items()} == {"a": "flag", "b": "own"}
    two = written(tmp_path / "two.json", {"a": {"command": "other"}})
    with pytest.raises(UsageError, match=r"`a` is in both .*one\.json and .*two\.json"):
        load_servers(world, [str(one), str(two)])


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("a ${X} ${env:X} $X {X}", "a 1 1 $X {X}"),
        ("${NONE:-b c}", "b c"),
        ("${EMPTY}|${EMPTY:-d}", "|d"),
        ("${X:-d}", "1"),
    ],
)
def test_variables_are_expanded(text: str, value: str) -> None:
    assert expand(text, {"X": "1", "EMPTY": ""}) == value


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("${NONE}", "the variable `NONE` is not set"),
        ("${env:NONE}", "the variable `NONE` is not set"),
        ("${input:key}", r"`\$\{input:key\}` is not a variable of the environment"),
        ("${}", "is not a variable of the environment"),
    ],
)
def test_a_variable_that_is_not_set_is_one_line(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        expand(text, {})


def test_the_values_of_variables_are_not_expanded_again() -> None:
    assert expand("${A}", {"A": "${B}", "B": "secret"}) == "${B}"


def test_every_text_of_a_server_is_expanded() -> None:
    server = Server(
        command="${X}", args=("-${X}",), env={"A": "${X}"}, cwd="${X}", url="", headers={}
    )
    assert server.expanded({"X": "1"}) == Server(command="1", args=("-1",), env={"A": "1"}, cwd="1")
    remote = Server(url="http://${X}/", headers={"Authorization": "Bearer ${X}"})
    assert remote.expanded({"X": "1"}) == Server(
        url="http://1/", headers={"Authorization": "Bearer 1"}
    )


@pytest.mark.parametrize(
    ("server", "origin"),
    [
        (Server(command="uvx", args=("a b", "${TOKEN}")), "uvx 'a b' '${TOKEN}'"),
        (Server(url="https://me:secret@x.example/mcp?key=secret#a"), "https://x.example/mcp"),
        (Server(url="https://x.example?key=secret"), "https://x.example"),
    ],
)
def test_leave_is_bound_to_a_command_or_an_address_without_secrets(
    server: Server, origin: str
) -> None:
    assert server.origin == origin
