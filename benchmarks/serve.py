"""A server under load: throughput, time to the first token, fairness, warm one-shots, and a soak.

    python benchmarks/serve.py                     # the table
    python benchmarks/serve.py --soak 10           # ten minutes of mixed requests, with memory
    python benchmarks/serve.py --url http://…      # the same requests to another server

The server counts the tokens (`usage`). Each stream has a different prompt, so that no prefix cache
helps.
"""

import argparse
import asyncio
import datetime
import json
import os
import random
import re
import socket
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

TOPICS = [
    "foxes", "rivers", "clocks", "bread", "winter", "maps", "trains", "gardens", "music", "stars",
    "ships", "bridges", "letters", "kings", "storms", "glass", "islands", "colours", "horses",
    "paper",
]  # fmt: skip


@dataclass
class Stream:
    """One answer: seconds from the request to its first and last piece, and its tokens."""

    first_s: float
    last_s: float
    tokens: int
    status: int

    @property
    def rate(self) -> float:
        return (self.tokens - 1) / (self.last_s - self.first_s) if self.tokens > 1 else 0.0


# Precedes the text of each piece, but not the empty piece that opens an answer.
_PIECE = b'"delta":{"content":'


async def ask(url: str, body: dict[str, object], *, leave_after: int = 0) -> Stream:
    """Send one streaming request over a new connection, and read the answer.

    leave_after: disconnect after this many pieces. A plain socket, whose bytes are parsed
    afterwards, so that the client uses little of the machine.
    """
    parts = urlsplit(url)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port, limit=1 << 20)
    content = json.dumps(
        body | {"stream": True, "stream_options": {"include_usage": True}}
    ).encode()
    head = (
        f"POST /v1/chat/completions HTTP/1.1\r\nHost: {parts.netloc}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(content)}\r\n"
    )
    started = time.perf_counter()
    writer.write(f"{head}Connection: close\r\n\r\n".encode() + content)
    status = int((await reader.readline()).split()[1])
    arrived = []
    pieces = 0
    while part := await reader.read(1 << 16):
        arrived.append((time.perf_counter() - started, part))
        pieces += part.count(_PIECE)
        if leave_after and pieces >= leave_after:
            break
    writer.close()
    spoken = [when for when, part in arrived if _PIECE in part]
    return Stream(
        spoken[0] if spoken else 0.0,
        spoken[-1] if spoken else 0.0,
        _tokens(b"".join(part for _, part in arrived)),
        status,
    )


def _tokens(answer: bytes) -> int:
    """What the server counted."""
    counted = re.findall(rb'"completion_tokens":\s*(\d+)', answer)
    return int(counted[-1]) if counted else 0


def request(model: str, number: int, tokens: int) -> dict[str, object]:
    first, second = TOPICS[number % len(TOPICS)], TOPICS[number * 7 % len(TOPICS)]
    text = f"Number {number}: write a long story about {first} and {second}."
    return {
        "model": model,
        "messages": [{"role": "user", "content": text}],
        "max_tokens": tokens,
        "temperature": 0.7,
        "seed": number,
        "ignore_eos": True,
    }


async def together(url: str, model: str, count: int, tokens: int, salt: int) -> list[Stream]:
    return await asyncio.gather(
        *(ask(url, request(model, salt + number, tokens)) for number in range(count))
    )


def total_rate(streams: list[Stream]) -> float:
    """Tokens a second of all streams, from their requests to the last token, queue included."""
    return sum(stream.tokens for stream in streams) / max(stream.last_s for stream in streams)


def compare(url: str, model: str, count: int, tokens: int, rounds: int) -> dict[str, Any]:
    """One stream and many by turns, so that a slow moment of the machine touches both."""
    asyncio.run(together(url, model, count, 8, 0))
    ones, manys = [], []
    for number in range(rounds):
        ones.append(asyncio.run(together(url, model, 1, tokens, 1000 + 100 * number)))
        manys.append(asyncio.run(together(url, model, count, tokens, 5000 + 100 * number)))
    one, many = statistics.median(map(total_rate, ones)), statistics.median(map(total_rate, manys))
    evenness = statistics.median(
        min(s.rate for s in run) / max(s.rate for s in run) for run in manys
    )
    firsts = sorted(stream.first_s for run in manys for stream in run)
    first_ms = 1000 * statistics.median(run[0].first_s for run in ones)
    print(f"one stream                 {one:8.1f} tokens/s   first token {first_ms:6.0f} ms")
    print(f"{count:2} streams, all together   {many:8.1f} tokens/s   {many / one:.2f} x one stream")
    print(f"slowest / fastest stream   {evenness:8.2f}")
    median_ms, last_ms = 1000 * statistics.median(firsts), 1000 * firsts[-1]
    print(f"first token of {count}          {median_ms:8.0f} ms median, {last_ms:.0f} ms last")
    return {
        "streams": count,
        "tokens": tokens,
        "one_tps": [round(total_rate(run), 1) for run in ones],
        "many_tps": [round(total_rate(run), 1) for run in manys],
        "many_over_one": round(many / one, 2),
        "slowest_over_fastest": round(evenness, 2),
        "first_token_s": {
            "one": round(statistics.median(run[0].first_s for run in ones), 3),
            "many": round(statistics.median(firsts), 3),
        },
    }


def one_shots(env: dict[str, str], count: int) -> dict[str, Any]:
    """From process start to the first character, through the running server."""
    times = []
    for _ in range(count):
        started = time.perf_counter()
        command = [sys.executable, "-m", "llmchat", "chat", "-n", "What is the capital of France?"]
        asked = subprocess.Popen(command, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
        assert asked.stdout is not None and asked.stdout.read(1)
        times.append(time.perf_counter() - started)
        asked.communicate()
    best_ms, median_ms = 1000 * min(times), 1000 * statistics.median(times)
    print(f"warm one-shot, first token {best_ms:8.0f} ms at best, {median_ms:.0f} ms median")
    return {"one_shot_first_token_s": round(statistics.median(times), 3)}


def _outcome(stream: Stream, *, left: bool) -> str:
    if stream.status in (400, 429):
        return "refused"
    if left:
        return "left"
    return "answers" if stream.status == 200 and stream.tokens else "other"


def resident_mb(process: int) -> float:
    with open(f"/proc/{process}/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


async def soak(url: str, model: str, minutes: float, clients: int, process: int) -> dict[str, Any]:
    """Clients that chat, ask for all lengths, disconnect and send errors; memory is sampled."""
    end = time.monotonic() + 60 * minutes
    counts = {"answers": 0, "left": 0, "refused": 0, "tokens": 0, "other": 0}
    samples: list[float] = []

    async def client(number: int) -> None:
        dice = random.Random(number)
        while time.monotonic() < end:
            body = request(model, dice.randrange(1_000_000), dice.choice((4, 16, 32, 64, 128)))
            if dice.random() < 0.4:
                body["messages"] = [
                    {"role": "user", "content": f"{dice.random()} " * dice.randrange(1, 60)},
                    {"role": "assistant", "content": "Yes."},
                    *body["messages"],  # type: ignore[misc]
                ]
            kind = dice.random()
            if kind < 0.05:
                body["temperature"] = 9
            made = await ask(url, body, leave_after=3 if kind > 0.85 else 0)
            counts[_outcome(made, left=kind > 0.85)] += 1
            counts["tokens"] += made.tokens

    async def watch() -> None:
        while time.monotonic() < end:
            samples.append(resident_mb(process))
            elapsed = 60 * minutes - (end - time.monotonic())
            print(f"{elapsed:6.0f} s  {samples[-1]:8.1f} MB  {counts}", flush=True)
            await asyncio.sleep(min(15.0, 6 * minutes))

    await asyncio.gather(watch(), *(client(number) for number in range(clients)))
    third = max(1, len(samples) // 3)
    middle = statistics.median(samples[third : 2 * third] or samples)
    last = statistics.median(samples[-third:])
    print(
        f"memory: {middle:.1f} MB in the middle third, {last:.1f} MB in the last"
        f" ({last - middle:+.1f} MB); {counts}"
    )
    return {
        "minutes": minutes,
        "clients": clients,
        "resident_mb": [round(sample) for sample in samples],
        "counts": counts,
    }


def save(name: str, result: dict[str, Any]) -> None:
    """One part of benchmarks/results/serve.json anew."""
    from llmchat.bench import machine

    file = Path(__file__).parent / "results" / "serve.json"
    results = json.loads(file.read_text("utf-8")) if file.exists() else {}
    facts = {
        "command": f"python benchmarks/serve.py {' '.join(sys.argv[1:])}",
        "date": datetime.date.today().isoformat(),
    }
    results[name] = facts | {"machine": machine.facts("cpu", machine.Machine(0))} | result
    file.write_text(json.dumps(results, indent=2) + "\n", "utf-8")


def start(model: str, slots: int, env: dict[str, str]) -> tuple[subprocess.Popen[bytes], str]:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    serve = [sys.executable, "-m", "llmchat", "serve", "-q", "-m", model]
    command = [*serve, "--port", str(port), "--slots", str(slots)]
    process = subprocess.Popen(command, env=env)
    url = f"http://127.0.0.1:{port}"
    asyncio.run(_ready(url, model))
    return process, url


async def _ready(url: str, model: str) -> None:
    """The socket is open before the model is loaded; the first request waits for it."""
    for _ in range(600):
        try:
            await ask(url, request(model, 1, 1))
            return
        except OSError:
            await asyncio.sleep(0.1)
    raise SystemExit("the server does not come up")


def main() -> None:
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--model", default="smollm2")
    options.add_argument("--streams", type=int, default=16)
    options.add_argument("--tokens", type=int, default=128)
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--soak", type=float, default=0.0, metavar="MINUTES")
    options.add_argument("--save", action="store_true", help="to benchmarks/results/serve.json")
    options.add_argument("--url", default="", help="a server that runs already")
    chosen = options.parse_args()
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)}
    server, url = (None, chosen.url) if chosen.url else start(chosen.model, chosen.streams, env)
    try:
        if chosen.soak:
            if server is None:
                raise SystemExit("--soak measures a server that it starts itself")
            name, result = (
                "soak",
                asyncio.run(soak(url, chosen.model, chosen.soak, chosen.streams + 4, server.pid)),
            )
        else:
            name, result = (
                "streams",
                compare(url, chosen.model, chosen.streams, chosen.tokens, chosen.rounds),
            )
            if server is not None:
                result |= one_shots(env, 7)
        if chosen.save:
            save(name, result)
    finally:
        if server is not None:
            server.terminate()
            server.wait()


if __name__ == "__main__":
    main()
