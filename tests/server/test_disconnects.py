"""Clients that disconnect at any moment leave nothing behind: no lease, no queue entry, no job."""

import random
import socket
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
from support.serving import Running, model_spec, serving, wait_until

from llmchat.engines.scripted import ScriptedEngine


def leave(run: Running, seed: int) -> None:
    """Send a request, and disconnect after a random part of the request or of the answer."""
    chance = random.Random(seed)
    body = {
        "model": chance.choice("ab"),
        "messages": [{"role": "user", "content": "hi " * chance.choice((1, 600))}],
    }
    content = msgspec.json.encode(
        {**body, "stream": chance.random() < 0.7, "n": chance.choice((1, 2))}
    )
    head = (
        "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(content)}\r\n\r\n"
    )
    request = head.encode() + content
    with socket.create_connection(("127.0.0.1", run.port), 10) as connection:
        if chance.random() < 0.2:
            connection.sendall(request[: chance.randrange(len(request))])
            return
        connection.sendall(request)
        connection.settimeout(chance.choice((0.001, 0.02, 0.1)))
        try:
            for _ in range(chance.randrange(4)):
                connection.recv(300)
        except TimeoutError:
            pass


def test_disconnecting_clients_leave_nothing_behind(tmp_path: Path) -> None:
    models = {
        name: model_spec(lambda: ScriptedEngine(["word " * 60], delay_s=0.001), key=name, size=60)
        for name in "ab"
    }
    with serving(models, tmp_path, slots=2, queue=6) as run:
        with ThreadPoolExecutor(8) as clients:
            list(clients.map(lambda seed: leave(run, seed), range(60)))
        pool, workers = run.state.pool, run.state.prompt_workers
        wait_until(lambda: not (pool.busy or pool.waiting or workers.busy), 60)
        for name in models:
            answer = run.http.post(
                "/v1/chat/completions",
                json={"model": name, "messages": [{"role": "user", "content": "hi"}]},
            )
            assert (
                answer.status_code == 200
                and answer.json()["choices"][0]["message"]["content"] == ("word " * 60).strip()
            )
