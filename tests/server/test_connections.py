"""When connections run out, the address with the most loses one; never one that is answering."""

import contextlib
import http.client
import resource
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from support.serving import Running, model_spec, serving
from support.worlds import make_world

from llmchat.background import client
from llmchat.engines.scripted import ScriptedEngine
from llmchat.server import graceful_server, sockets
from llmchat.server.graceful_server import max_connections
from llmchat.server.serve_options import ServeOptions
from llmchat.settings import World

MODELS = {"m": model_spec(lambda: ScriptedEngine(["a b c d e f g h"], delay_s=0.05))}
ASK = b'{"model": "m", "messages": [{"role": "user", "content": "hi"}], "stream": true}'
POST = (
    b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\n"
    b"Content-Type: application/json\r\nContent-Length: "
)


def connect(run: Running, address: str = "127.0.0.1") -> socket.socket:
    return socket.create_connection(
        ("127.0.0.1", run.port), timeout=20, source_address=(address, 0)
    )


def status(run: Running, address: str) -> int:
    connection = http.client.HTTPConnection(
        "127.0.0.1", run.port, timeout=20, source_address=(address, 0)
    )
    with contextlib.closing(connection):
        connection.request("GET", "/v1/models")
        return connection.getresponse().status


def test_idle_connections_of_one_address_do_not_block_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(graceful_server, "MAX_CONNECTIONS", 8)
    with serving(MODELS, tmp_path) as run, contextlib.ExitStack() as stack:
        kept = stack.enter_context(connect(run, "127.0.0.3"))
        idle = [stack.enter_context(connect(run)) for _ in range(20)]
        assert status(run, "127.0.0.2") == status(run, "127.0.0.2") == 200
        assert idle[0].recv(1) == b"", "the oldest connection of the largest address is closed"
        kept.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert kept.recv(100).startswith(b"HTTP/1.1 200"), (
            "an address with few connections keeps them"
        )
        assert status(run, "127.0.0.1") == 200, (
            "new requests of the largest address are served, too"
        )


def test_connections_with_incomplete_bodies_are_displaced_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(graceful_server, "MAX_CONNECTIONS", 8)
    with serving(MODELS, tmp_path) as run, contextlib.ExitStack() as stack:
        for _ in range(12):
            stack.enter_context(connect(run)).sendall(POST + b"1000\r\n\r\n{")
        assert status(run, "127.0.0.2") == 200


def test_streams_continue_while_others_connect(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(graceful_server, "MAX_CONNECTIONS", 8)
    with serving(MODELS, tmp_path) as run, contextlib.ExitStack() as stack:
        stream = stack.enter_context(connect(run))
        stream.sendall(POST + str(len(ASK)).encode() + b"\r\nConnection: close\r\n\r\n" + ASK)
        received = stream.recv(1000)
        for _ in range(20):
            stack.enter_context(connect(run))
        while piece := stream.recv(65536):
            received += piece
        assert b"[DONE]" in received


def test_connections_use_half_of_the_files_at_most(monkeypatch: pytest.MonkeyPatch) -> None:
    for files, most in ((resource.RLIM_INFINITY, 1000), (20_000, 1000), (1024, 512), (256, 128)):
        monkeypatch.setattr(resource, "getrlimit", lambda _, files=files: (files, files))
        assert max_connections() == most


def test_of_two_servers_that_start_together_one_has_the_socket(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    both = threading.Barrier(2)

    def alive(world: World) -> bool:
        """Without the lock, both servers call this at the same time, and both find no server."""
        found = client.alive(world)
        with contextlib.suppress(threading.BrokenBarrierError):
            both.wait(0.5)
        return found

    monkeypatch.setattr(sockets, "alive", alive)
    done = threading.Barrier(2)

    def start(world: World) -> list[int]:
        with sockets.listening(world, ServeOptions(port=0)) as listeners:
            families = [int(one.family) for one in listeners]
            done.wait(20)
        return families

    world = make_world(tmp_path)
    with ThreadPoolExecutor(2) as threads:
        started = [family for families in threads.map(start, [world, world]) for family in families]
    assert started.count(socket.AF_UNIX) == 1 and started.count(socket.AF_INET) == 2
