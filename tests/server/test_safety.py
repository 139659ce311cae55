"""Hostile clients: other web pages, large bodies, slow heads and bodies, full queues."""

import json
import socket
import time
from pathlib import Path

import openai
import pytest
from support.serving import ASK, model_spec, raw, serving, wait_until

from llmchat.engines.scripted import ScriptedEngine
from llmchat.errors import UsageError
from llmchat.server import head_timeout, streaming_response
from llmchat.server.keys import Keys
from llmchat.server.run import serve
from llmchat.server.serve_options import ServeOptions

MODELS = {"m": model_spec(lambda: ScriptedEngine(["Hello there."]))}
POST = (
    b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
)


def answer_of(client: openai.OpenAI) -> str | None:
    return client.chat.completions.create(**ASK).choices[0].message.content


def test_only_valid_keys_are_admitted(tmp_path: Path) -> None:
    keys = Keys(tmp_path / "keys.json")
    secret = keys.add("ann")
    with serving(MODELS, tmp_path) as run:
        for path in ("/v1/models", "/metrics", "/api/ps", "/openapi.json"):
            assert run.http.get(path).status_code == 401, path
        assert run.http.get("/health").status_code == 200
        with pytest.raises(openai.AuthenticationError) as caught:
            run.openai.models.list()
        assert (
            caught.value.code == "invalid_api_key"
            and caught.value.response.headers["www-authenticate"] == "Bearer"
        )
        client = openai.OpenAI(base_url=f"{run.url}/v1", api_key=secret, max_retries=0)
        assert answer_of(client) == "Hello there."
        assert (
            run.http.get("/api/ps", headers={"x-api-key": secret}).json()["models"][0]["name"]
            == "test"
        )
        keys.remove("ann")
        keys.add("bob")
        with pytest.raises(openai.AuthenticationError):
            client.models.list()


def test_an_unreadable_key_file_admits_no_one(tmp_path: Path) -> None:
    (tmp_path / "keys.json").write_text("[{")
    with serving(MODELS, tmp_path) as run:
        refused = run.http.get("/v1/models")
        assert refused.status_code == 503 and str(tmp_path) not in refused.text


def test_an_idle_server_shuts_down(tmp_path: Path) -> None:
    with serving(MODELS, tmp_path, idle_s=2) as run:
        assert answer_of(run.openai)
        wait_until(run.loop.is_closed)


def test_another_address_requires_a_key(tmp_path: Path) -> None:
    from support.worlds import make_world

    for host in ("0.0.0.0", "192.168.1.5", "::"):
        with pytest.raises(UsageError, match="no API key"):
            serve(make_world(tmp_path), {}, ServeOptions(host=host))


def test_other_host_names_and_other_web_pages_are_refused(tmp_path: Path) -> None:
    with serving(MODELS, tmp_path) as run:

        def status(**headers: str) -> int:
            return run.http.post("/v1/chat/completions", json=ASK, headers=headers).status_code

        assert status() == 200 and status(origin=run.url) == 200
        assert status(host="evil.example") == 403, (
            "DNS rebinding: a foreign name that resolves to this machine"
        )
        assert status(origin="https://evil.example") == 403 and status(origin="null") == 403
        assert run.http.get("/", headers={"host": "evil.example"}).status_code == 403
        assert (
            run.http.options(
                "/v1/models",
                headers={"origin": "https://evil.example", "access-control-request-method": "GET"},
            ).status_code
            == 403
        )
        plain = run.http.post(
            "/v1/chat/completions", content=json.dumps(ASK), headers={"content-type": "text/plain"}
        )
        assert plain.status_code == 400, "the form of another web page could send this"


def test_web_pages_allowed_by_cors_are_admitted(tmp_path: Path) -> None:
    with serving(MODELS, tmp_path, cors=("https://good.example",)) as run:
        asked = {
            "origin": "https://good.example",
            "access-control-request-method": "POST",
            "access-control-request-headers": "authorization",
        }
        assert (
            run.http.options("/v1/chat/completions", headers=asked).headers[
                "access-control-allow-origin"
            ]
            == "https://good.example"
        )
        answer = run.http.post(
            "/v1/chat/completions", json=ASK, headers={"origin": "https://good.example"}
        )
        assert (
            answer.headers["access-control-allow-origin"] == "https://good.example"
            and answer.status_code == 200
        )
        assert (
            run.http.post(
                "/v1/chat/completions", json=ASK, headers={"origin": "https://evil.example"}
            ).status_code
            == 403
        )


def test_owner_routes_are_closed_to_the_network(tmp_path: Path) -> None:
    with serving(MODELS, tmp_path) as run:
        assert (
            run.http.post("/private/stop").status_code == 403
            and run.http.post("/private/open", json={}).status_code == 403
        )
        assert (
            run.http.get("/api/ps").status_code == 403
            and run.http.post("/api/stop", json={}).status_code == 403
        )
        assert run.http.get("/health").json()["status"] == "ok"


def test_large_bodies_are_refused_by_declared_and_by_actual_length(tmp_path: Path) -> None:
    with serving(MODELS, tmp_path, max_body=1000) as run:
        large = run.http.post("/v1/chat/completions", json=ASK | {"user": "x" * 2000})
        assert large.status_code == 413 and large.json()["error"]["type"] == "invalid_request_error"
        head = POST + b"Transfer-Encoding: chunked\r\n\r\n"
        chunk = b"3e8\r\n" + b" " * 1000 + b"\r\n"
        assert raw(run, head, chunk, chunk, b"0\r\n\r\n").startswith(b"HTTP/1.1 413")
        claimed = POST + b"Content-Length: 99999999999\r\n\r\n{"
        assert raw(run, claimed).startswith(b"HTTP/1.1 413")
        assert answer_of(run.openai)


def test_large_heads_are_refused(tmp_path: Path) -> None:
    with serving(MODELS, tmp_path) as run:
        answer = raw(run, b"GET /health HTTP/1.1\r\nHost: localhost\r\nX: " + b"x" * 200_000)
        assert answer == b"" or answer.startswith(b"HTTP/1.1 4")
        assert run.http.get("/health").status_code == 200


def test_slow_heads_time_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(head_timeout, "HEAD_TIMEOUT_S", 0.2)
    with serving(MODELS, tmp_path) as run:
        assert raw(run) == b"", "a connection that sends nothing"
        assert raw(run, b"GET /health HT") == b""
        with socket.create_connection(("127.0.0.1", run.port), 10) as drop:
            # Single bytes do not extend the time limit.
            drop.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\nX-Slow: ")
            with pytest.raises((BrokenPipeError, ConnectionResetError)):
                for _ in range(3000):
                    drop.sendall(b"a")
                    time.sleep(0.02)
        # The time limit does not apply to answers.
        assert answer_of(run.openai)


def test_the_head_timeout_does_not_apply_to_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(head_timeout, "HEAD_TIMEOUT_S", 0.1)
    with serving(
        {"m": model_spec(lambda: ScriptedEngine(["a b c d e f"], delay_s=0.05))}, tmp_path
    ) as run:
        assert answer_of(run.openai) == "a b c d e f"


def test_slow_bodies_time_out(tmp_path: Path) -> None:
    with serving(MODELS, tmp_path, body_timeout_s=0.2) as run:
        head = POST + b"Content-Length: 100\r\n\r\n{"
        assert raw(run, head).startswith(b"HTTP/1.1 408")


def test_a_client_that_stops_reading_delays_no_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streaming_response, "WRITE_TIMEOUT_S", 0.5)
    engine = model_spec(
        lambda: ScriptedEngine([" ".join(["x" * 50_000] * 600)], context=3000), key="long"
    )
    with (
        serving({"long": engine, "m": MODELS["m"]}, tmp_path) as run,
        socket.create_connection(("127.0.0.1", run.port), 10) as stalled,
    ):
        body = json.dumps(ASK | {"model": "long", "stream": True}).encode()
        head = POST + b"Content-Length: %d\r\n\r\n"
        stalled.sendall(head % len(body) + body)
        assert stalled.recv(15) == b"HTTP/1.1 200 OK"
        assert answer_of(run.openai)
        wait_until(lambda: not run.state.pool.busy and run.scheduler("long").running == 0)


def test_requests_beyond_queue_and_rate_get_a_retry_time(
    tmp_path: Path,
) -> None:
    with serving(
        {"m": model_spec(lambda: ScriptedEngine(["word " * 500], delay_s=0.01))},
        tmp_path,
        slots=1,
        queue=0,
    ) as run:
        stream = run.openai.chat.completions.create(**ASK, stream=True)
        next(iter(stream))
        with pytest.raises(openai.RateLimitError) as caught:
            run.openai.chat.completions.create(**ASK)  # type: ignore[call-overload]
        assert (
            int(caught.value.response.headers["retry-after"]) >= 1
            and caught.value.code == "rate_limit_exceeded"
        )
        stream.close()
    with serving(MODELS, tmp_path, rate=2) as run:
        assert [run.http.get("/v1/models").status_code for _ in range(3)] == [200, 200, 429]
        assert run.http.get("/health").status_code == 200


def test_an_answer_past_the_timeout_is_an_error(tmp_path: Path) -> None:
    with serving(
        {"m": model_spec(lambda: ScriptedEngine(["word " * 500], delay_s=0.01))},
        tmp_path,
        timeout_s=0.2,
    ) as run:
        with pytest.raises(openai.InternalServerError) as caught:
            run.openai.chat.completions.create(**ASK)  # type: ignore[call-overload]
        assert caught.value.status_code == 504 and caught.value.code == "timeout"
        with pytest.raises(openai.APIError, match="longer than"):
            list(run.openai.chat.completions.create(**ASK, stream=True))


def test_internal_errors_reveal_nothing(tmp_path: Path) -> None:
    class Broken(ScriptedEngine):
        def step(self, answers: object) -> list[object]:  # type: ignore[override]
            raise RuntimeError("the secret path /home/ann")

    def unloadable() -> ScriptedEngine:
        raise RuntimeError("another secret")

    with serving({"m": model_spec(Broken), "n": model_spec(unloadable, key="n")}, tmp_path) as run:
        for model in ("m", "n"):
            answer = run.http.post("/v1/chat/completions", json=ASK | {"model": model})
            assert (
                answer.status_code == 500
                and "secret" not in answer.text
                and answer.json()["error"]["code"] == "internal_error"
            )
        assert (
            b"secret"
            not in run.http.post("/v1/chat/completions", json=ASK | {"stream": True}).content
        )


def test_the_log_contains_prompts_only_if_asked_to(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    for log_prompts in (False, True):
        caplog.clear()
        with serving(MODELS, tmp_path, log_prompts=log_prompts) as run:
            run.http.post(
                "/v1/chat/completions",
                json=ASK | {"messages": [{"role": "user", "content": "my secret"}]},
            )
            run.http.post("/v1/completions", json={"model": "m", "prompt": "my secret"})
        shown = "\n".join(
            record.getMessage()
            for record in caplog.records
            if record.name.startswith(("llmchat", "uvicorn"))
        )
        assert ("my secret" in shown) == log_prompts and "POST /v1/completions 200" in shown


def test_a_stream_aborted_by_shutdown_ends_with_an_error_event(tmp_path: Path) -> None:
    slow = model_spec(lambda: ScriptedEngine(["word " * 5000], delay_s=0.01))
    with (
        serving({"m": slow}, tmp_path, grace_s=0.2) as run,
        run.http.stream("POST", "/v1/chat/completions", json={**ASK, "stream": True}) as answer,
    ):
        lines = answer.iter_lines()
        next(lines)
        run.server.should_exit = True
        last = [line for line in lines if line][-1]
    assert json.loads(last.removeprefix("data: "))["error"]["code"] == "stopping"
