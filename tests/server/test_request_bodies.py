"""Large bodies are parsed in a thread, one at a time, with the same errors as small ones."""

import contextlib
import json
import re
import select
import socket
import threading
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError
from support.serving import model_spec, serving, wait_until

from llmchat.engines.scripted import ScriptedEngine
from llmchat.server import body_reader, request_bodies
from llmchat.server.api import MAX_TOOLS, ChatRequest
from llmchat.server.messages_api.schema import MessagesRequest
from llmchat.server.responses_api.schema import ResponseRequest

MODELS = {"m": model_spec(lambda: ScriptedEngine(["Hello there."]))}
SMALL = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
IS_JSON = {"content-type": "application/json"}
MANY: list[Any] = [{}] * 1000
LARGE = {"model": "m", "messages": [{"role": "user", "content": "hi " * 20_000}]}


class Held:
    """A `decode_body` that waits until it may go on, and counts concurrent calls."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch):
        self.begun, self.may = threading.Semaphore(0), threading.Event()
        self.running = self.most = 0
        self._decode_body = request_bodies.decode_body
        monkeypatch.setattr(request_bodies, "decode_body", self)

    def __call__(self, body: bytes, kind: Any) -> Any:
        self.running += 1
        self.most = max(self.most, self.running)
        self.begun.release()
        assert self.may.wait(20)
        self.running -= 1
        return self._decode_body(body, kind)


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        (ChatRequest, {"messages": MANY}),
        (ChatRequest, {"messages": [{"role": "user", "content": MANY}]}),
        (MessagesRequest, {"max_tokens": 9, "messages": MANY}),
        (MessagesRequest, {"max_tokens": 9, "messages": SMALL["messages"], "system": MANY}),
        (ResponseRequest, {"input": MANY}),
        (ResponseRequest, {"input": [{"role": "user", "content": MANY}]}),
    ],
)
def test_the_first_invalid_item_of_a_list_ends_its_validation(
    kind: type[BaseModel], body: dict[str, Any]
) -> None:
    """The errors of a million items took gigabytes, and stalled every stream for seconds."""
    with pytest.raises(ValidationError) as caught:
        kind.model_validate({"model": "m", **body})
    assert caught.value.error_count() < 10


@pytest.mark.parametrize("path", ["chat/completions", "messages", "responses"])
def test_too_many_tools_are_refused_at_once(path: str, tmp_path: Path) -> None:
    inner = [{"type": "function", "name": f"f{index}"} for index in range(MAX_TOOLS)]
    tools: dict[str, Any] = {
        "chat/completions": [{"type": "function", "function": one} for one in inner],
        "messages": [{"name": one["name"], "input_schema": {"type": "object"}} for one in inner],
        "responses": [{"type": "namespace", "name": "n", "tools": inner}],
    }
    given = [*tools[path], tools[path][0]]
    asked = {"input": "hi"} if path == "responses" else SMALL | {"max_tokens": 5}
    with serving(MODELS, tmp_path) as run:
        answer = run.http.post(f"/v1/{path}", json=asked | {"model": "m", "tools": given})
    assert answer.status_code == 400
    assert re.search(r"at most 1024 items|more than 1,024 tools", answer.json()["error"]["message"])


def test_other_requests_are_answered_while_a_large_body_is_parsed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = Held(monkeypatch)
    with serving(MODELS, tmp_path) as run:
        statuses: list[int] = []
        threads = [
            threading.Thread(
                target=lambda: statuses.append(
                    run.http.post("/v1/chat/completions", json=LARGE).status_code
                )
            )
            for _ in "12"
        ]
        for thread in threads:
            thread.start()
        try:
            assert held.begun.acquire(timeout=20)
            assert run.http.post("/v1/chat/completions", json=SMALL).status_code == 200
            assert statuses == [] and held.running == 1
        finally:
            held.may.set()
            for thread in threads:
                thread.join(20)
        assert statuses == [400, 400] and held.most == 1, "the prompts are larger than the window"


@pytest.mark.parametrize(
    "wrong",
    [
        {"temperature": "hot"},
        {"messages": []},
        {"messages": [{"role": "user", "content": "\ud800"}]},
        {"messages": [{"role": "nobody", "content": "hi"}]},
        {"nonsense": 1},
        {"stop": ["a", 2]},
    ],
    ids=["type", "length", "half a character", "choice", "unknown", "union"],
)
def test_small_and_large_bodies_get_the_same_errors(tmp_path: Path, wrong: dict[str, Any]) -> None:
    with serving(MODELS, tmp_path) as run:
        # Half a character has no bytes of its own, but an escape.
        content = [json.dumps({**SMALL, **wrong, "user": "x" * size}) for size in (1, 60_000)]
        answers = [
            run.http.post("/v1/chat/completions", content=body, headers=IS_JSON) for body in content
        ]
        assert answers[0].status_code == answers[1].status_code == 400
        assert answers[0].json() == answers[1].json()


def test_a_large_body_with_invalid_json_is_refused(tmp_path: Path) -> None:
    with serving(MODELS, tmp_path) as run:
        for body in (
            b"[" * 100_000,
            b"{" + b" " * 100_000,
            b"\xff" * 100_000,
            b'{"a":' * 50_000,
            b"9" * 100_000,
            b"[[]," * 50_000,
        ):
            answer = run.http.post("/v1/chat/completions", content=body, headers=IS_JSON)
            assert (
                answer.status_code == 400
                and answer.json()["error"]["type"] == "invalid_request_error"
            ), body[:8]
        assert run.http.post("/v1/chat/completions", json=SMALL).status_code == 200


def test_the_bodies_of_one_client_share_a_memory_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(body_reader, "BODIES_A_CLIENT", 2)
    monkeypatch.setattr(body_reader, "LINGER_S", 0.05)
    half = (
        b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\n"
        b"Content-Type: application/json\r\nContent-Length: 1000\r\n\r\n" + b" " * 990
    )
    with serving(MODELS, tmp_path, max_body=1000) as run, contextlib.ExitStack() as stack:
        greedy = [
            stack.enter_context(socket.create_connection(("127.0.0.1", run.port), timeout=20))
            for _ in "123"
        ]
        for one in greedy:
            one.sendall(half)
        answers = select.select(greedy, [], [], 20)[0]
        assert len(answers) == 1 and answers[0].recv(100).startswith(b"HTTP/1.1 429")
        other = stack.enter_context(
            socket.create_connection(
                ("127.0.0.1", run.port), timeout=20, source_address=("127.0.0.2", 0)
            )
        )
        body = json.dumps({"model": "m", "prompt": "hi"}).encode()
        other.sendall(half.replace(b"1000", str(len(body)).encode())[:-990] + body)
        assert other.recv(100).startswith(b"HTTP/1.1 200")
        for one in greedy:
            one.close()
        ask = {"model": "m", "prompt": "hi"}
        # The memory of the closed connections becomes free.
        wait_until(lambda: run.http.post("/v1/completions", json=ask).status_code == 200)
