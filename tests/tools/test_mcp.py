"""Servers that run as programs: what they offer, what they return, and all they can do wrong."""

import json
import threading
from pathlib import Path
from threading import Event

import pytest
from support.mcp_clients import (
    PATIENT,
    call,
    connected,
    entry,
    mark,
    marked,
    resident,
    until,
)
from support.worlds import make_world

from llmchat.errors import UsageError
from llmchat.tools import Output, ToolError
from llmchat.tools.mcp import Limits, McpServers, Server, connect
from llmchat.tools.mcp.definitions import (
    LONGEST_DESCRIPTION,
    MOST_TOOLS,
)
from llmchat.tools.running import run

# A call ends only if something ends it.
PATIENT_CALLS = Limits(wait=20.0, start=20.0, call=300.0)
HASTY = Limits(wait=0.5, start=1.0, call=0.3)


def note(servers: McpServers) -> str:
    """The only line for the user."""
    (line,) = servers.take_notes()
    assert len(line.splitlines()) == 1 and "\x1b" not in line
    return line


def others_go_on(servers: McpServers) -> bool:
    """Whether the server `good` beside a hostile one works."""
    return call(servers, "echo", "good", text="hello") == "hello"


def test_tools_are_listed_and_called(tmp_path: Path) -> None:
    with connected(tmp_path, it=entry()) as servers:
        tool = next(tool for tool in servers.tools if tool.name == "it_echo")
        assert (tool.group, tool.description) == ("it", "The tool echo.")
        assert tool.origin.endswith("mcp_server.py plain")
        assert tool.parameters == {"type": "object", "properties": {"text": {"type": "string"}}}
        assert tool.run({"text": "hé\n"}, Event()) == Output("hé\n", untrusted=True)
        assert run(tool, {"text": "hello"}, timeout_s=20).text == "hello"
        assert servers.take_notes() == [] and servers.starting == ()


def test_a_hint_of_the_server_grants_nothing(tmp_path: Path) -> None:
    with connected(tmp_path, it=entry()) as servers:
        hints = {tool.remote: tool.claims_read_only for tool in servers.tools}
        assert hints == {"echo": True, "grow": False, "bye": False}
        assert not any(tool.read_only for tool in servers.tools)


def test_a_server_gets_safe_variables_and_its_own(tmp_path: Path) -> None:
    env = {"OPENAI_API_KEY": "secret", "HF_TOKEN": "secret", "USER": "me", "SHELL": "() { :; }"}
    world = make_world(tmp_path, **env)
    server = entry(TOKEN="${OPENAI_API_KEY}")
    with connect({"it": server}, world, PATIENT) as servers:
        servers.wait()
        seen = json.loads(call(servers, "environment"))
    assert seen.pop("TOKEN") == "secret" and seen.pop("LC_CTYPE", "C.UTF-8") == "C.UTF-8"
    assert set(seen) == {"HOME", "PATH", "USER", "PYTHONSAFEPATH"}


def test_a_folder_of_its_own(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "here.py").write_text("import os; print(os.getcwd(), file=__import__('sys').stderr)")
    server = Server(command="python3", args=("here.py",), cwd=str(folder))
    with connected(tmp_path, it=server) as servers:
        assert str(folder) in servers.log("it")


def test_a_server_that_does_not_exist_is_one_line(tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    broken.write_text("#!/nowhere\n")
    broken.chmod(0o700)
    wrong = {
        "absent": (Server(command="nonono"), "the program `nonono` is not installed"),
        "broken": (Server(command=str(broken)), "it ended with exit code 126"),
        "folder": (Server(command="python3", cwd="/none"), "its folder `/none` does not exist"),
        "secret": (entry(KEY="${NONE}"), "the variable `NONE` is not set (export NONE=…)"),
        "exits": (entry("exits"), "it ended with exit code 3: ImportError: no module x"),
    }
    servers = {name: server for name, (server, _) in wrong.items()}
    with connected(tmp_path, good=entry(), **servers) as running:
        lines = running.take_notes()
        for name, (_, reason) in wrong.items():
            line = next(line for line in lines if f"`{name}`" in line)
            assert line.startswith(f"MCP server `{name}` did not start: {reason}")
        assert len(lines) == len(wrong) and others_go_on(running)
        with pytest.raises(ToolError, match="MCP server `absent` is not running: the program"):
            call(running, "echo", "absent")


@pytest.mark.parametrize(
    ("behaviour", "reason"),
    [
        ("nonsense", "it writes no MCP messages to stdout, but `bla bla`"),
        ("one_line", "it sent a message of more than 32 MB"),
        ("error", "its answer is not as MCP requires"),
    ],
)
def test_a_server_that_speaks_nonsense_is_one_line(
    behaviour: str, reason: str, tmp_path: Path
) -> None:
    value = mark()
    with connected(tmp_path, it=entry(behaviour, MARK=value), good=entry()) as servers:
        assert note(servers) == f"MCP server `it` did not start: {reason}"
        assert others_go_on(servers)
        assert until(lambda: not marked(value))


def test_a_server_that_hangs_is_told_of_and_then_given_up(tmp_path: Path) -> None:
    value, seen = mark(), list[tuple[str, ...]]()
    with connect({"it": entry("hangs", MARK=value)}, make_world(tmp_path), HASTY) as servers:
        servers.wait(seen.append)
        assert seen == [("it",)] and servers.starting == ("it",)
        assert note(servers) == (
            "MCP server `it` has not started within 0.5 s; its tools follow when it has"
        )
        servers.wait(seen.append)
        assert seen == [("it",)] and servers.take_notes() == []
        with pytest.raises(ToolError, match="still starting"):
            call(servers, "echo")
        assert until(lambda: not servers.starting) and not marked(value)
        assert note(servers) == "MCP server `it` did not start: it did not answer within 1 s"


def test_a_slow_server_is_ready_later(tmp_path: Path) -> None:
    limits = Limits(wait=0.0, start=20.0)
    with connect({"it": entry()}, make_world(tmp_path), limits) as servers:
        servers.wait()
        assert servers.tools == [] and "has not started" in note(servers)
        assert until(lambda: bool(servers.tools))
        assert note(servers) == "MCP server `it` is ready now, with 3 tools"


def test_greetings_on_stdout_are_ignored(tmp_path: Path) -> None:
    with connected(tmp_path, it=entry("greets")) as servers:
        assert call(servers, "echo", text="hello") == "hello" and servers.take_notes() == []


def test_stderr_goes_to_a_short_log_and_not_to_the_terminal(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with connected(tmp_path, it=entry("stderr"), other=entry("exits")) as servers:
        assert until(lambda: servers.log("it").endswith("line 19999"))
        assert len(servers.log("it").splitlines()) == 200
        assert "\x1b" not in servers.log("it")
    assert capfd.readouterr() == ("", "")


def test_a_server_has_no_terminal(tmp_path: Path) -> None:
    with connected(tmp_path, it=entry()) as servers:
        assert call(servers, "terminal").startswith("no terminal")


def test_all_pages_are_listed(tmp_path: Path) -> None:
    with connected(tmp_path, it=entry("pages")) as servers:
        assert [tool.remote for tool in servers.tools] == [f"page{page}" for page in range(5)]


def test_a_list_without_an_end_is_cut(tmp_path: Path) -> None:
    with connected(tmp_path, it=entry("endless")) as servers:
        assert [tool.remote for tool in servers.tools] == ["echo"]


def test_a_thousand_tools_are_cut_and_can_be_chosen_from(tmp_path: Path) -> None:
    from msgspec.structs import replace

    chosen = replace(entry("many"), include=("t999", "t7", "none"), exclude=("t7",))
    with connected(tmp_path, it=entry("many"), few=chosen) as servers:
        names = [tool.name for tool in servers.tools]
        assert names == [*(f"it_t{number}" for number in range(MOST_TOOLS)), "few_t999"]
        assert note(servers) == (
            "MCP server `it` has 1,000 tools, of which the first 128 are used; "
            "choose with `includeTools` in its entry"
        )


def test_wrong_tools_are_left_out_and_the_others_stay(tmp_path: Path) -> None:
    with connected(tmp_path, it=entry("wrong")) as servers:
        tools = {tool.remote: tool for tool in servers.tools}
        assert set(tools) == {"echo", "long", "strict"}
        assert LONGEST_DESCRIPTION < len(tools["long"].description) < LONGEST_DESCRIPTION + 20
        assert "\x1b" not in tools["long"].description
        assert note(servers) == (
            "MCP server `it` has 8 tools that cannot be used; "
            "`typo`: the JSON Schema cannot be used: Invalid type: strin"
        )
        # The catastrophic patterns of its schemas, which would never end, are matched neither by
        # us nor by the SDK.
        assert run(tools["echo"], {"a": "a" * 40 + "!"}, timeout_s=20).error.startswith("invalid")
        assert call(servers, "echo", text="hello") == "hello"


def test_names_fit_for_a_model_and_each_is_used_once(tmp_path: Path) -> None:
    with connected(tmp_path, **{"my server": entry("names"), "my": entry("names")}) as servers:
        names = [tool.name for tool in servers.tools]
        assert len(set(names)) == len(names) == 14
        assert all(len(name) <= 64 and name.isascii() for name in names)
        assert names[:2] == ["my_server_read_file", names[1]]
        assert names == [tool.name for tool in servers.tools]


def test_the_tools_of_others_keep_their_names(tmp_path: Path) -> None:
    with connect({"it": entry()}, make_world(tmp_path), PATIENT, taken={"it_echo"}) as servers:
        servers.wait()
        assert servers.tools[0].name.startswith("it_echo_")


def test_parts_of_a_result_become_text(tmp_path: Path) -> None:
    with connected(tmp_path, it=entry()) as servers:
        assert call(servers, "parts").splitlines() == [
            "one",
            "two",
            "[image: image/png, 300 bytes]",
            "[audio: audio/wav, 3 bytes]",
            "[link: file:///a, unknown type]",
            "[resource: file:///t]",
            "three",
            "[resource: file:///b, x/y, 3 bytes]",
        ]
        assert call(servers, "data") == '{"degrees": 21.5}'


@pytest.mark.parametrize(
    ("tool", "message"),
    [
        ("fail", "disk full"),
        ("refuse", "no such [2J tool"),
        ("odd", "its answer is not as MCP requires"),
    ],
)
def test_a_tool_that_fails_is_one_line(tool: str, message: str, tmp_path: Path) -> None:
    with connected(tmp_path, it=entry()) as servers:
        with pytest.raises(ToolError) as caught:
            call(servers, tool)
        assert caught.value.message == message
        assert call(servers, "echo", text="hello") == "hello"


def test_a_server_that_asks_for_more_gets_nothing(tmp_path: Path) -> None:
    record = tmp_path / "record"
    with connected(tmp_path, it=entry(record=record), good=entry()) as servers:
        assert call(servers, "ask") == (
            "Sampling not supported; Elicitation not supported; List roots not supported"
        )
        assert servers.take_notes() == [
            f"MCP server `it` asked for `{method}`, which llmchat refuses"
            for method in ("sampling/createMessage", "elicitation/create", "roots/list")
        ]
        assert call(servers, "ask") and servers.take_notes() == [] and others_go_on(servers)
    sent = [json.loads(line) for line in record.read_text("utf-8").splitlines()]
    offers = next(m for m in sent if m["method"] == "initialize")["params"]["capabilities"]
    assert not offers


def test_a_flood_of_requests_is_neither_answered_nor_noted_without_end(tmp_path: Path) -> None:
    record = tmp_path / "record"
    with connected(tmp_path, it=entry(record=record)) as servers:
        before = resident()
        assert call(servers, "flood") == "flooded" and call(servers, "echo", text="a") == "a"
        assert resident() - before < 100_000_000
        assert len(servers.take_notes()) == 20
    assert record.read_text("utf-8").count('"id":"flood') == 1000


def test_a_server_of_the_2026_protocol_that_asks_gets_nothing(tmp_path: Path) -> None:
    with connected(tmp_path, it=entry("modern"), good=entry()) as servers:
        with pytest.raises(ToolError, match="Sampling not supported"):
            call(servers, "demand")
        assert note(servers) == (
            "MCP server `it` asked for `sampling/createMessage`, which llmchat refuses"
        )
        assert others_go_on(servers)


def test_stop_cancels_a_call_before_its_time_limit(tmp_path: Path) -> None:
    record, stop = tmp_path / "record", Event()
    with connected(tmp_path, PATIENT_CALLS, it=entry(record=record)) as servers:
        threading.Timer(0.2, stop.set).start()
        with pytest.raises(ToolError, match="stopped"):
            servers.call("it", "hang", {}, stop)
        assert until(lambda: "notifications/cancelled" in record.read_text("utf-8"))
        assert call(servers, "echo", text="hello") == "hello"


def test_a_call_that_never_returns_is_cancelled_in_time(tmp_path: Path) -> None:
    record = tmp_path / "record"
    limits = Limits(wait=20.0, start=20.0, call=0.3)
    with connected(tmp_path, limits, it=entry(record=record)) as servers:
        with pytest.raises(ToolError, match="timed out"):
            call(servers, "hang")
        assert until(lambda: "notifications/cancelled" in record.read_text("utf-8"))
        assert call(servers, "echo", text="hello") == "hello"


def test_an_answer_of_a_gigabyte_is_refused_in_bounded_memory(tmp_path: Path) -> None:
    with connected(tmp_path, it=entry(), good=entry()) as servers:
        before = resident()
        with pytest.raises(ToolError, match="it sent a message of more than 32 MB"):
            call(servers, "huge")
        assert resident() - before < 200_000_000
        assert until(lambda: bool(servers.take_notes())) and others_go_on(servers)


def test_a_server_that_dies_in_a_call_is_one_line(tmp_path: Path) -> None:
    with connected(tmp_path, it=entry(), good=entry()) as servers:
        reason = "it ended with exit code 9: Segmentation fault"
        with pytest.raises(ToolError, match=f"the server stopped: {reason}"):
            call(servers, "bye")
        assert until(lambda: len(servers.tools) == 3)
        assert note(servers) == f"MCP server `it` stopped: {reason}"
        with pytest.raises(ToolError, match=f"is not running: {reason}"):
            call(servers, "echo")
        assert others_go_on(servers)


def test_changed_tools_are_seen_and_told(tmp_path: Path) -> None:
    with connected(tmp_path, it=entry()) as servers:
        assert call(servers, "grow") == "grown"
        assert until(lambda: "it_grown" in [tool.name for tool in servers.tools])
        assert note(servers) == (
            "MCP server `it` changed its tools (new: grown; removed: bye; changed: echo)"
        )


def test_connecting_waits_for_no_server(tmp_path: Path) -> None:
    value = mark()
    hung = {name: entry("hangs", MARK=value) for name in ("a", "b")}
    with connect(hung, make_world(tmp_path), Limits(wait=60.0, start=10.0)) as servers:
        # After the time for a start, none would be starting any more.
        assert servers.starting == ("a", "b")
        assert until(lambda: len(marked(value)) == 4), "two keepers and two servers, side by side"


def test_disabled_servers_do_not_start(tmp_path: Path) -> None:
    record = tmp_path / "record"
    with connected(tmp_path, off=Server(command="touch", args=(str(record),), disabled=True)):
        pass
    assert not record.exists()


def test_unknown_keys_are_told_of(tmp_path: Path) -> None:
    from msgspec.structs import replace

    server = replace(entry(), ignored=("colour",), file="mcp.json")
    with connected(tmp_path, it=server) as servers:
        assert note(servers) == "MCP server `it` has the unknown key `colour` in mcp.json"


def test_without_the_sdk_a_line_names_the_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("llmchat.tools.mcp.servers.find_spec", lambda name: None)
    with pytest.raises(UsageError) as caught:
        connect({"it": entry()}, make_world(tmp_path))
    assert caught.value.hint == "pip install 'llmchat[tools]'"
