"""A server that fails in every way: what is tried again, what the user reads, and that no key is
ever shown.
"""

import datetime
import socket
import ssl
import subprocess
import threading
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest
from support.openai_server import App, Asked, Told, json_of, serving

from llmchat.engines.openai_api import connection
from llmchat.engines.openai_api.connection import TRIES, Connection
from llmchat.errors import (
    ContextOverflow,
    LlmchatError,
    ModelNotFound,
    NetworkError,
    NotAuthorised,
    UsageError,
)

KEY = "sk-very-secret-0123456789"


class Waits(list[float]):
    """Notes how long it was asked to wait, and does not."""

    def __call__(self, seconds: float) -> None:
        self.append(seconds)


def failing(*answers: Told) -> App:
    """These answers in turn, then a good one."""
    left = list(answers)
    return lambda asked: left.pop(0) if left else json_of({"ok": True})


@pytest.mark.parametrize(
    ("url", "base", "root", "host"),
    [
        (
            "http://localhost:8000/v1",
            "http://localhost:8000/v1",
            "http://localhost:8000",
            "localhost:8000",
        ),
        (
            "localhost:11434",
            "http://localhost:11434/v1",
            "http://localhost:11434",
            "localhost:11434",
        ),
        (
            "http://localhost:8000/",
            "http://localhost:8000/v1",
            "http://localhost:8000",
            "localhost:8000",
        ),
        (
            "https://api.openai.com/v1/chat/completions",
            "https://api.openai.com/v1",
            "https://api.openai.com",
            "api.openai.com",
        ),
        (
            "https://gate.example/llm/v1/",
            "https://gate.example/llm/v1",
            "https://gate.example/llm",
            "gate.example",
        ),
        (
            "https://gate.example/llm",
            "https://gate.example/llm",
            "https://gate.example/llm",
            "gate.example",
        ),
        (
            "http://me:secret@box:8000/v1",
            "http://me:secret@box:8000/v1",
            "http://me:secret@box:8000",
            "box:8000",
        ),
    ],
)
def test_an_address_is_read_as_it_is_meant(url: str, base: str, root: str, host: str) -> None:
    made = Connection(url)
    assert (made.base, made.root, made.host) == (base, root, host)
    assert "secret" not in repr(made)


@pytest.mark.parametrize("url", ["ftp://host/v1", "http://", "http://[::1", ""])
def test_what_is_no_address_is_said_so(url: str) -> None:
    with pytest.raises(UsageError, match=r"invalid (server )?address"):
        Connection(url)


@pytest.mark.parametrize("key", ["sk-ключ", "sk-a\nb"])
def test_a_key_that_cannot_be_sent_is_not_repeated(key: str) -> None:
    with pytest.raises(NotAuthorised) as refused:
        Connection("http://localhost", key)
    assert key not in refused.value.message + refused.value.hint


@pytest.mark.parametrize("status", [429, 502, 503, 504])
def test_a_busy_server_is_asked_again(status: int) -> None:
    waits = Waits()
    with serving(failing(json_of({}, status), json_of({}, status))) as (url, asked):
        assert Connection(url, KEY, wait=waits).get("models") == {"ok": True}
    assert len(asked) == 3 and 0.4 <= waits[0] <= 0.6 and 0.8 <= waits[1] <= 1.2
    assert asked[0].headers["Authorization"] == f"Bearer {KEY}"


def test_without_a_key_none_is_sent() -> None:
    with serving(failing()) as (url, asked):
        Connection(url).get("models")
    assert "Authorization" not in asked[0].headers


def test_after_so_many_tries_it_gives_up() -> None:
    waits = Waits()
    busy = json_of({"error": {"message": "the engine is overloaded"}}, 503)
    with (
        serving(lambda asked: busy) as (url, asked),
        pytest.raises(NetworkError, match="reports: the engine is overloaded"),
    ):
        Connection(url, wait=waits).get("models")
    assert len(asked) == TRIES == len(waits) + 1


def test_it_waits_as_long_as_the_server_says() -> None:
    waits = Waits()
    soon = format_datetime(
        datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=20), usegmt=True
    )
    late = [json_of({}, 429, **{"Retry-After": value}) for value in ("7", "0.25", soon, "whenever")]
    with serving(failing(*late[:3])) as (url, _):
        Connection(url, wait=waits).get("models")
    assert waits[:2] == [7, 0.25] and 15 < waits[2] <= 20
    with serving(failing(late[3])) as (url, _):
        Connection(url, wait=waits).get("models")
    assert 0.4 <= waits[3] <= 0.6, "what cannot be read counts as nothing"


def test_a_long_wait_is_told_and_not_made() -> None:
    waits = Waits()
    with serving(
        failing(json_of({"error": {"message": "quota"}}, 429, **{"Retry-After": "3600"}))
    ) as (url, asked):
        with pytest.raises(NetworkError) as refused:
            Connection(url, wait=waits).get("models")
        assert "3,600 s" in refused.value.hint and len(asked) == 1 and not waits


@pytest.mark.parametrize(
    ("status", "error", "kind", "words"),
    [
        (
            401,
            {"message": f"Incorrect API key provided: {KEY}."},
            NotAuthorised,
            "rejects the key: Incorrect API key provided: ***.",
        ),
        (403, {"message": "no access"}, NotAuthorised, "no access"),
        (
            404,
            {"message": "The model `x` does not exist"},
            ModelNotFound,
            "The model `x` does not exist",
        ),
        (
            400,
            {"message": "temperature is wrong"},
            UsageError,
            "rejects the request: temperature is wrong",
        ),
        (422, "validation", UsageError, "validation"),
        (
            400,
            {"message": "This model's maximum context length is 10 tokens", "code": 400},
            ContextOverflow,
            "is 10 tokens",
        ),
        (
            400,
            {"message": "Too long", "code": "context_length_exceeded"},
            ContextOverflow,
            "Too long",
        ),
        (
            400,
            {"message": "request (9 tokens)", "type": "exceed_context_size_error"},
            ContextOverflow,
            "request",
        ),
        (500, {"message": "crashed"}, NetworkError, "reports: crashed"),
        (418, {}, UsageError, "HTTP status 418"),
    ],
)
def test_an_error_is_told_once_and_without_the_key(
    status: int, error: Any, kind: type[LlmchatError], words: str
) -> None:
    with (
        serving(lambda asked: json_of({"error": error}, status)) as (url, asked),
        pytest.raises(kind) as raised,
    ):
        Connection(url, KEY, wait=Waits()).post("completions", {})
    assert words in raised.value.message and KEY not in raised.value.message + raised.value.hint
    assert len(asked) == 1 and raised.value.__cause__ is None


@pytest.mark.parametrize(
    ("told", "words"),
    [
        (Told([b"<html>gateway</html>"], 500, "text/html"), "HTTP status 500"),
        (Told([b"out of luck"], 500, "text/plain"), "out of luck"),
        (Told([b"<html>welcome</html>"], 200, "text/html"), "something other than JSON"),
        (Told([b"{"], 200, "application/json", cut=True), "broke in the middle"),
        (
            Told([], 307, "text/plain", {"Location": "https://elsewhere/v1"}),
            "has moved to https://elsewhere/v1",
        ),
    ],
)
def test_what_is_no_answer_is_one_line(told: Told, words: str) -> None:
    with (
        serving(lambda asked: told) as (url, _),
        pytest.raises(LlmchatError, match=words) as raised,
    ):
        Connection(url, wait=Waits()).get("models")
    assert "\n" not in raised.value.message


def test_no_money_is_not_tried_again() -> None:
    broke = json_of(
        {"error": {"message": "You exceeded your current quota", "code": "insufficient_quota"}}, 429
    )
    with (
        serving(lambda asked: broke) as (url, asked),
        pytest.raises(NetworkError, match="exceeded your current quota"),
    ):
        Connection(url, wait=Waits()).get("models")
    assert len(asked) == 1


def test_nobody_there_is_tried_again_and_told() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    waits = Waits()
    with pytest.raises(NetworkError, match=f"127.0.0.1:{port} cannot be reached") as refused:
        Connection(f"http://127.0.0.1:{port}", wait=waits).get("models")
    assert len(waits) == TRIES - 1 and "--url" in refused.value.hint


def test_a_connection_that_breaks_before_the_first_byte_is_made_again() -> None:
    broken = threading.Semaphore(2)

    def app(asked: Asked) -> Told:
        if broken.acquire(blocking=False):
            raise ConnectionResetError
        return json_of({"ok": True})

    waits = Waits()
    with serving(app) as (url, _):
        assert Connection(url, wait=waits).post("completions", {}) == {"ok": True}
    assert len(waits) == 2


def test_a_certificate_of_nobody_is_not_trusted(tmp_path: Path) -> None:
    pem = tmp_path / "own.pem"
    command = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "rsa:2048",
        "-nodes",
        "-days",
        "1",
        "-subj",
        "/CN=localhost",
    ]
    subprocess.run(
        [*command, "-keyout", pem, "-out", tmp_path / "crt.pem"], check=True, capture_output=True
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "crt.pem", pem)
    waits = Waits()
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def greet() -> None:
            try:
                with context.wrap_socket(listener.accept()[0], server_side=True):
                    pass
            except OSError:
                pass

        thread = threading.Thread(target=greet, daemon=True)
        thread.start()
        with pytest.raises(NetworkError, match="cannot be trusted") as refused:
            Connection(f"https://127.0.0.1:{listener.getsockname()[1]}", wait=waits).get("models")
        thread.join()
    assert "SSL_CERT_FILE" in refused.value.hint and not waits, (
        "nothing gets better by asking again"
    )


def test_silence_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "READ_TIMEOUT_S", 0.05)
    silent = threading.Event()

    def app(asked: Asked) -> Told:
        silent.wait(5)
        return json_of({})

    with serving(app) as (url, _):
        with pytest.raises(NetworkError, match="has sent nothing"):
            Connection(url, wait=Waits()).get("models")
        silent.set()


def test_a_proxy_of_the_environment_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(lambda asked: json_of({"proxied": asked.path})) as (proxy, _):
        monkeypatch.setenv("HTTP_PROXY", proxy)
        monkeypatch.delenv("NO_PROXY", raising=False)
        monkeypatch.delenv("no_proxy", raising=False)
        assert Connection("http://far.example/v1").get("models") == {
            "proxied": "http://far.example/v1/models"
        }


def test_closed_it_connects_again() -> None:
    with serving(failing()) as (url, asked):
        made = Connection(url)
        for _ in range(2):
            made.get("models")
            made.close()
            made.close()
    assert len(asked) == 2
