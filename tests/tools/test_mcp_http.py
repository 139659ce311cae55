"""Servers at an address: what they return, and all they can do wrong."""

import threading
import zlib
from collections.abc import Callable
from pathlib import Path
from threading import Event
from typing import Any

import pytest
from support.mcp_clients import PATIENT, call, connected, resident, until
from support.openai_server import App, Asked, Told, json_of, serving, sse
from support.worlds import make_world

from llmchat.tools import ToolError
from llmchat.tools.mcp import Limits, Server, connect

JSON_FAILED = "Failed to parse JSON response"
MEGABYTE = b"x" * 1_000_000
Answer = Callable[[dict[str, Any]], Told]


def result(asked: dict[str, Any], **values: Any) -> Told:
    return json_of({"jsonrpc": "2.0", "id": asked.get("id"), "result": values})


def answering(answer: Answer) -> App:
    """A server with one tool, whose calls `answer` answers."""

    def app(request: Asked) -> Told:
        body = request.body
        method = body.get("method")
        if method == "initialize":
            version, about = body["params"]["protocolVersion"], {"name": "x", "version": "1"}
            return result(
                body, protocolVersion=version, capabilities={"tools": {}}, serverInfo=about
            )
        if method == "tools/list":
            return result(body, tools=[{"name": "do", "inputSchema": {"type": "object"}}])
        if method == "tools/call":
            return answer(body)
        return Told(status=202 if "id" not in body else 400)

    return app


def said(body: dict[str, Any]) -> Told:
    return result(body, content=[{"type": "text", "text": "done"}])


def events(body: dict[str, Any]) -> Told:
    note = {"jsonrpc": "2.0", "method": "notifications/message", "params": {}}
    whole = {"jsonrpc": "2.0", "id": body["id"], "result": {"content": []}}
    whole["result"] = {"content": [{"type": "text", "text": "streamed"}]}
    return Told(sse(note, whole, done=False))


def test_a_tool_is_called_with_the_headers_of_the_file(tmp_path: Path) -> None:
    with serving(answering(said)) as (url, asked):
        server = Server(url=f"{url}/${{WHERE}}", headers={"Authorization": "Bearer ${TOKEN}"})
        world = make_world(tmp_path, WHERE="mcp", TOKEN="secret")
        with connect({"it": server}, world, PATIENT) as servers:
            servers.wait()
            assert [tool.name for tool in servers.tools] == ["it_do"]
            assert call(servers, "do") == "done"
    assert {(one.path, one.headers["Authorization"]) for one in asked} == {
        ("/mcp", "Bearer secret")
    }


def test_answers_may_come_as_events(tmp_path: Path) -> None:
    with serving(answering(events)) as (url, _), connected(tmp_path, it=Server(url=url)) as servers:
        assert call(servers, "do") == "streamed"


@pytest.mark.parametrize(
    ("server", "reason"),
    [
        (Server(url="http://127.0.0.1:1/mcp"), "no connection"),
        (Server(url="ftp://127.0.0.1/"), "its `url` is not an address of http or https"),
        (Server(url="http://x:port/"), "its `url` or a header is invalid"),
        (Server(url="http://x", headers={"A": "\u20ac"}), "its `url` or a header is invalid"),
        (Server(url="http://x", headers={"A": "a\nb"}), "a header of it has an invalid character"),
    ],
)
def test_a_server_that_cannot_be_reached_is_one_line(
    server: Server, reason: str, tmp_path: Path
) -> None:
    with connected(tmp_path, it=server) as servers:
        assert servers.take_notes() == [f"MCP server `it` did not start: {reason}"]


def test_offline_mode_keeps_to_this_machine(tmp_path: Path) -> None:
    far = Server(url="http://example.org/mcp")
    world = make_world(tmp_path).in_offline_mode()
    with (
        serving(answering(said)) as (url, _),
        connect({"far": far, "near": Server(url=url)}, world, PATIENT) as servers,
    ):
        servers.wait()
        assert servers.take_notes() == [
            "MCP server `far` did not start: offline mode is on "
            "(leave --offline and HF_HUB_OFFLINE out)"
        ]
        assert call(servers, "do", "near") == "done"


@pytest.mark.parametrize(
    ("told", "reason"),
    [
        (Told([b"<html>"], kind="text/html"), "Unexpected content type: text/html"),
        (Told([b"{"], kind="application/json"), JSON_FAILED),
        (Told([b"data: {\n\n"]), "Failed to parse SSE message"),
        (Told(status=401), "it asks for a key (HTTP status 401); put one into its `headers`"),
        (Told(status=404), "HTTP status 404"),
        (Told(status=500), "HTTP status 500"),
        (Told(status=307, headers={"location": "http://10.0.0.1/"}), "Redirect to http://10.0.0.1"),
        (
            Told([MEGABYTE] * 40, kind="application/json"),
            f"{JSON_FAILED}: more than 32 MB",
        ),
        (Told([b"data: ", *[MEGABYTE] * 40]), "SSE stream failed"),
        (
            Told([zlib.compress(MEGABYTE * 40)], headers={"content-encoding": "deflate"}),
            "unexpected content encoding `deflate`",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_server_that_speaks_nonsense_is_one_line(told: Told, reason: str, tmp_path: Path) -> None:
    before = resident()
    with (
        serving(lambda request: told) as (url, _),
        serving(answering(said)) as (good, _),
        connected(tmp_path, it=Server(url=url), good=Server(url=good)) as servers,
    ):
        (line,) = servers.take_notes()
        assert line.startswith(f"MCP server `it` did not start: {reason}")
        assert len(line.splitlines()) == 1 and call(servers, "do", "good") == "done"
    assert resident() - before < 200_000_000


def test_a_server_that_never_answers_is_given_up(tmp_path: Path) -> None:
    leave = Event()

    def hang(request: Asked) -> Told:
        leave.wait(20)
        return Told(status=500)

    limits = Limits(wait=20.0, start=0.5)
    with serving(hang) as (url, _), connected(tmp_path, limits, it=Server(url=url)) as servers:
        assert servers.take_notes() == [
            "MCP server `it` did not start: it did not answer within 0.5 s"
        ]
        leave.set()


def test_stop_cancels_a_call_before_its_time_limit(tmp_path: Path) -> None:
    leave, stop = Event(), Event()

    def hang(body: dict[str, Any]) -> Told:
        leave.wait(60)
        return said(body)

    with (
        serving(answering(hang)) as (url, asked),
        connected(tmp_path, Limits(call=300.0), it=Server(url=url)) as servers,
    ):
        threading.Timer(0.2, stop.set).start()
        with pytest.raises(ToolError, match="stopped"):
            servers.call("it", "do", {}, stop)
        told = lambda: [one.body.get("method") for one in asked]  # noqa: E731
        assert until(lambda: "notifications/cancelled" in told())
        leave.set()


@pytest.mark.parametrize(
    ("told", "reason"),
    [
        (Told([b'{"jsonrpc": "2.0", "', *[MEGABYTE] * 40], kind="application/json"), "32 MB"),
        (Told([b"data: ", *[MEGABYTE] * 40]), "SSE stream failed"),
        (Told(status=503), "HTTP status 503"),
    ],
    ids=["json", "events", "status"],
)
def test_a_call_that_fails_leaves_the_server_usable(
    told: Told, reason: str, tmp_path: Path
) -> None:
    answers = iter([told])

    def answer(body: dict[str, Any]) -> Told:
        return next(answers, None) or said(body)

    before = resident()
    with (
        serving(answering(answer)) as (url, _),
        connected(tmp_path, it=Server(url=url)) as servers,
    ):
        with pytest.raises(ToolError, match=reason):
            call(servers, "do")
        assert call(servers, "do") == "done"
    assert resident() - before < 200_000_000
