#!/usr/bin/env python3
"""Sixty tasks with tools: does a model choose the right one, with the right arguments, or none?

    python benchmarks/tool_tasks.py llmchat=http://127.0.0.1:8000 llama.cpp=http://127.0.0.1:8080
    python benchmarks/tool_tasks.py llmchat --model qwen2.5-coder-1.5b
    python benchmarks/tool_tasks.py llama.cpp --gguf qwen2.5-coder-1.5b.gguf
    … --choices auto,required,named --answers FOLDER --save

A system is a name and the address of an OpenAI-compatible server; `llmchat` and `llama.cpp` alone
are started here, the latter from the wheel xllamacpp. All get the same requests, with greedy
decoding. The choices `required` and `named` ask the 40 tasks that need a tool.

--answers keeps each answer as it comes; a run that is repeated goes on where the last one stopped.
--save writes benchmarks/results/tool_tasks.json.

Measured on 26 November 2026 with Qwen2.5-Coder-1.5B-Instruct (Q4_K_M; llmchat in int8): llmchat 39
of 60 right, 49 of 49 calls parse; llama.cpp (xllamacpp 2026.10) 9 of 60, 0 of 47: docs/tools.md.
"""

import argparse
import contextlib
import datetime
import json
import os
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct
from tool_checks import Answer, Definition, Marks, Task, definitions, marks, tasks

CHOICES = ("auto", "required", "named")
# The longest right call is some 90 tokens.
MAX_TOKENS = 112
_WAIT_S = 600


class Record(Struct, frozen=True):
    """One task, asked once. seconds: for the whole answer."""

    task: str
    answer: Answer
    seconds: float


class Score(Struct, frozen=True):
    """Counts of tasks, then of calls; see Marks. needed: tasks that need a call."""

    tasks: int
    right: int
    needed: int
    tool: int
    arguments: int
    none: int
    valid: int
    malformed: int
    invented: int
    median_s: float

    @property
    def parsed(self) -> float:
        """The share of calls that parse and keep the schema."""
        return self.valid / max(1, self.valid + self.malformed)


class Server:
    """One system under test."""

    def __init__(self, url: str, model: str = "", system: str = ""):
        import httpx2

        self.system = system

        self._client = httpx2.Client(base_url=url, timeout=_WAIT_S)
        self._model = model or self._client.get("/v1/models").json()["data"][0]["id"]

    def ask(self, task: Task, offered: Sequence[Definition], choice: str) -> Answer:
        system = [{"role": "system", "content": self.system}] if self.system else []
        body = {
            "model": self._model,
            "messages": [*system, {"role": "user", "content": task.ask}],
            "tools": list(offered),
            "tool_choice": _choice(task, choice),
            "temperature": 0,
            "max_tokens": MAX_TOKENS,
        }
        response = self._client.post("/v1/chat/completions", json=body)
        if not response.is_success:
            raise SystemExit(f"{task.id}: {response.status_code} {response.text}")
        return answer_of(response.json()["choices"][0])


def _choice(task: Task, choice: str) -> Any:
    if choice == "named":
        return {"type": "function", "function": {"name": task.tool}}
    return choice


def answer_of(choice: dict[str, Any]) -> Answer:
    """The answer in a response of the API."""
    message = choice["message"]
    functions = [call["function"] for call in message.get("tool_calls") or ()]
    calls = tuple((function["name"], function["arguments"]) for function in functions)
    return Answer(message.get("content") or "", calls, choice["finish_reason"])


def asked(choice: str) -> list[Task]:
    """The tasks for a `tool_choice`."""
    return [task for task in tasks() if choice == "auto" or task.tool]


def ask_all(
    server: Server,
    choice: str,
    offered: Sequence[Definition],
    kept: Path | None = None,
    together: int = 1,
) -> list[Record]:
    """Every task once. kept: a file of earlier answers, which gets the new ones too. together: how
    many tasks are under way at a time.
    """
    records = _kept(kept)

    def ask(task: Task) -> Record:
        started = time.perf_counter()
        answer = server.ask(task, offered, choice)
        return Record(task.id, answer, round(time.perf_counter() - started, 2))

    def keep(record: Record) -> None:
        records[record.task] = record
        if kept:
            with kept.open("ab") as file:
                file.write(msgspec.json.encode(record) + b"\n")

    missing = [task for task in asked(choice) if task.id not in records]
    # The others share the definitions, which the first one reads.
    for task in missing[:1]:
        keep(ask(task))
    with ThreadPoolExecutor(together) as pool:
        for future in as_completed([pool.submit(ask, task) for task in missing[1:]]):
            keep(future.result())
    return [records[task.id] for task in asked(choice)]


def _kept(file: Path | None) -> dict[str, Record]:
    if file is None or not file.exists():
        return {}
    lines = file.read_bytes().splitlines()
    return {one.task: one for one in (msgspec.json.decode(line, type=Record) for line in lines)}


def mark_all(records: Sequence[Record], offered: Sequence[Definition]) -> dict[str, Marks]:
    by_id = {task.id: task for task in tasks()}
    return {record.task: marks(by_id[record.task], record.answer, offered) for record in records}


def score(records: Sequence[Record], offered: Sequence[Definition]) -> Score:
    by_id = {task.id: task for task in tasks()}
    made = mark_all(records, offered)
    needed = [mark for name, mark in made.items() if by_id[name].tool]
    return Score(
        tasks=len(made),
        right=sum(mark.arguments for mark in made.values()),
        needed=len(needed),
        tool=sum(mark.tool for mark in needed),
        arguments=sum(mark.arguments for mark in needed),
        none=sum(mark.tool for name, mark in made.items() if not by_id[name].tool),
        valid=sum(mark.valid for mark in made.values()),
        malformed=sum(mark.malformed for mark in made.values()),
        invented=sum(mark.invented for mark in made.values()),
        median_s=statistics.median(record.seconds for record in records),
    )


def report(name: str, choice: str, result: Score) -> str:
    free = result.tasks - result.needed
    none = f"none {result.none}/{free}" if free else "none –"
    return (
        f"{name:10} {choice:8} right {result.right}/{result.tasks}   tool {result.tool}/"
        f"{result.needed}   arguments {result.arguments}/{result.needed}   {none}   calls that"
        f" parse {100 * result.parsed:.0f} % of {result.valid + result.malformed}"
        f"   invented {result.invented}"
        f"   {result.median_s:.1f} s"
    )


def wrong(records: Sequence[Record], offered: Sequence[Definition]) -> Iterator[str]:
    """A line for each task that is not right."""
    made = mark_all(records, offered)
    for record in records:
        if not made[record.task].arguments:
            calls = " ".join(f"{name}{arguments}" for name, arguments in record.answer.calls)
            yield f"  {record.task:20} {calls} {record.answer.text!r}"


@contextlib.contextmanager
def running(system: str, model: str, gguf: str) -> Iterator[Server]:
    """A server by its address, or one that is started for the time of the block."""
    name, _, url = system.partition("=")
    if url:
        yield Server(url)
        return
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    process = subprocess.Popen(_command(name, port, model, gguf))
    try:
        yield _ready(f"http://127.0.0.1:{port}", process)
    finally:
        process.terminate()
        process.wait()


def _command(name: str, port: int, model: str, gguf: str) -> list[str]:
    if name == "llmchat" and model:
        serve = [sys.executable, "-m", "llmchat", "serve", "-q", "-m", model]
        return [*serve, "--port", str(port)]
    if name == "llama.cpp" and gguf:
        return [sys.executable, __file__, "--serve-llama", gguf, "--port", str(port)]
    raise SystemExit("llmchat needs --model, llama.cpp needs --gguf, any other system an address")


def _ready(url: str, process: subprocess.Popen[bytes]) -> Server:
    import httpx2

    for _ in range(10 * _WAIT_S):
        with contextlib.suppress(httpx2.TransportError, KeyError):
            return Server(url)
        if process.poll() is not None:
            break
        time.sleep(0.1)
    raise SystemExit("the server does not come up")


def serve_llama(gguf: str, port: int) -> None:
    """llama.cpp's own server, with the chat template of the file and its parser of tool calls."""
    import xllamacpp

    parameters = xllamacpp.CommonParams()
    parameters.model.path = gguf
    parameters.n_ctx = 8192
    parameters.n_parallel = 1
    parameters.hostnames, parameters.port = ["127.0.0.1"], port
    parameters.use_jinja = True
    parameters.ui = parameters.fit_params = False
    parameters.n_gpu_layers = 0
    parameters.verbosity = -1
    if (threads := os.environ.get("OMP_NUM_THREADS", "")).isdigit():
        parameters.cpuparams.n_threads = parameters.cpuparams_batch.n_threads = int(threads)
    server = xllamacpp.Server(parameters)
    print(server.listening_address, flush=True)
    while True:
        time.sleep(60)


def save(results: list[dict[str, Any]]) -> None:
    """benchmarks/results/tool_tasks.json, with the results of other systems kept."""
    file = Path(__file__).parent / "results" / "tool_tasks.json"
    old = json.loads(file.read_text("utf-8"))["results"] if file.exists() else []
    new = {(one["system"], one["choice"]): one for one in [*old, *results]}
    table = {"results": [new[key] for key in sorted(new)]}
    file.write_text(json.dumps(table, indent=2, ensure_ascii=False) + "\n", "utf-8")


def measure(system: str, chosen: argparse.Namespace) -> list[dict[str, Any]]:
    name, offered, found = system.partition("=")[0], definitions(), []
    with running(system, chosen.model, chosen.gguf) as server:
        server.system = chosen.system
        for choice in chosen.choices.split(","):
            kept = chosen.answers and chosen.answers / f"{name}-{choice}.jsonl"
            records = ask_all(server, choice, offered, kept, chosen.together)
            result = score(records, offered)
            print(report(name, choice, result), *wrong(records, offered), sep="\n", flush=True)
            facts = {"system": name, "choice": choice, "date": str(datetime.date.today())}
            found.append(facts | msgspec.to_builtins(result) | {"parsed": round(result.parsed, 3)})
    return found


def main() -> None:
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("systems", nargs="*", metavar="SYSTEM", help="llmchat, or NAME=URL")
    options.add_argument("--model", default="", help="for llmchat: a name or a GGUF file")
    options.add_argument("--gguf", default="", help="for llama.cpp: a GGUF file")
    options.add_argument("--choices", default="auto", help=f"of {', '.join(CHOICES)}")
    options.add_argument("--answers", type=Path, metavar="FOLDER")
    options.add_argument("--system", default="", metavar="TEXT", help="a system text for all tasks")
    options.add_argument("--together", type=int, default=1, help="tasks at a time")
    options.add_argument("--save", action="store_true")
    options.add_argument("--serve-llama", default="", help=argparse.SUPPRESS)
    options.add_argument("--port", type=int, default=0, help=argparse.SUPPRESS)
    chosen = options.parse_args()
    if chosen.serve_llama:
        serve_llama(chosen.serve_llama, chosen.port)
    if chosen.answers:
        chosen.answers.mkdir(parents=True, exist_ok=True)
    results = [one for system in chosen.systems for one in measure(system, chosen)]
    if chosen.save:
        save(results)


if __name__ == "__main__":
    main()
