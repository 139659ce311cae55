#!/usr/bin/env python3
"""Speed, memory and quality of the default model as a table: the numbers behind the README.

usage: python benchmarks/basics.py [--runs N] [--save]       needs `llmchat pull smollm2`

Each figure is the median of N runs of the real program or engine. Runs of the kinds of weights
alternate, so that drift of the machine's speed affects all. --save writes
benchmarks/results/basics.json with the machine and the date.
"""

import argparse
import datetime
import json
import math
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
TEXT = HERE / "data" / "moby_dick.txt"
LONG = "The history of France is long and rich. " * 60
QUESTION = "What is the capital of France?"
KINDS = ("int8", "bf16", "fp32", "int4")


def command(*arguments: str, stdin: str = "") -> tuple[float, float, str]:
    """Run llmchat; returns seconds until the first byte of stdout, seconds in all, and stdout."""
    started = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-m", "llmchat", *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=False,
    )
    assert process.stdin and process.stdout
    process.stdin.write(stdin.encode())
    process.stdin.close()
    first = process.stdout.read(1)
    first_byte = time.perf_counter() - started
    text = (first + process.stdout.read()).decode()
    process.wait()
    return first_byte, time.perf_counter() - started, text


def first_prompt() -> float:
    """Seconds until a REPL in a terminal takes a first message."""
    import pexpect

    started = time.perf_counter()
    child = pexpect.spawn(
        sys.executable,
        ["-m", "llmchat", "-n"],
        encoding="utf-8",
        timeout=30,
        env=os.environ | {"TERM": "xterm-256color"},
    )
    child.expect_exact("\x1b[0;1m>")
    seconds = time.perf_counter() - started
    child.close(force=True)
    return seconds


def median_of(runs: int, measure: Callable[[], float]) -> float:
    return statistics.median(measure() for _ in range(runs))


def in_process(kind: str, what: str) -> Any:
    """One measurement in a process of its own, so that memory and caches are its own."""
    out = subprocess.run(
        [sys.executable, __file__, "--inside", kind, what],
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(out.stdout.splitlines()[-1])


def inside(kind: str, what: str) -> None:
    os.environ.setdefault("GOMP_SPINCOUNT", "5000")  # as cli.main does
    print(json.dumps({"speed": speed, "perplexity": perplexity, "turns": turns}[what](kind)))


def open_engine(kind: str) -> Any:
    from llmchat.models.loading import load
    from llmchat.models.locate import locate
    from llmchat.presets import preset_for
    from llmchat.settings import Options, World

    options = Options(model="smollm2", weights=kind, device="cpu")  # type: ignore[arg-type]
    model = locate(preset_for(options), World.real())
    return model.preset, load(model, options)


def speed(kind: str) -> dict[str, float]:
    """Tokens per second (64 decoded, 541 prefilled), load time, peak memory, weight bytes."""
    from llmchat.engines import Finish, Sampling
    from llmchat.prompt import Prompt

    _, engine = open_engine(kind)
    greedy = Sampling(temperature=0, max_tokens=64)

    def finish(text: str) -> Finish:
        engine.clear_cache()
        *_, last = engine.stream(Prompt(text, ()), greedy)
        return last

    finish(LONG)
    long, short = [finish(LONG) for _ in range(3)], [finish("Once upon a time") for _ in range(3)]
    status = dict(
        line.split(":", 1)
        for line in Path("/proc/self/status").read_text().splitlines()
        if ":" in line
    )
    return {
        "load_s": engine.load_s,
        "prefill_tps": statistics.median(one.prompt_tokens / one.prefill_s for one in long),
        "decode_tps": statistics.median(one.tokens_per_second for one in short),
        "peak_bytes": int(status["VmHWM"].split()[0]) * 1024,
        "weight_bytes": weight_bytes(engine),
    }


def weight_bytes(engine: Any) -> int:
    """Bytes of every tensor of the model, each counted once."""
    import gc

    import torch

    storages = {
        t.untyped_storage().data_ptr(): t.untyped_storage().nbytes()
        for t in gc.get_objects()
        if isinstance(t, torch.Tensor) and t.numel() > 1000
    }
    return sum(storages.values())


def perplexity(kind: str) -> float:
    """Of the first chapters of Moby-Dick (public domain)."""
    _, engine = open_engine(kind)
    return perplexity_of(engine)


def perplexity_of(engine: Any) -> float:
    """In windows of 2,048 tokens, each read afresh."""
    import torch

    from llmchat.prompt import Prompt

    ids = engine.encode(Prompt(TEXT.read_text("utf-8"), ()))
    scores = torch.cat(
        [engine.score(ids[start : start + 2048]) for start in range(0, len(ids), 2048)]
    )
    return math.exp(-float(scores.mean()))


def turns(kind: str) -> dict[str, list[float]]:
    """Ten turns with questions of one length: tokens prefilled and seconds to the first token."""
    from llmchat.chat import Chat
    from llmchat.engines import Sampling
    from llmchat.history import History

    preset, engine = open_engine(kind)
    chat = Chat(preset, engine, History(None), Sampling(temperature=0, max_tokens=40))
    read, first = [], []
    for number in range(10):
        for _ in chat.send(f"Tell me one short fact about the number {number + 10}, please."):
            pass
        assert chat.finish
        read.append(chat.finish.prompt_tokens - chat.finish.cached_tokens)
        first.append(chat.finish.prefill_s)
    return {"read_tokens": read, "first_token_s": first}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--save", action="store_true")
    parser.add_argument("--inside", nargs=2)
    arguments = parser.parse_args()
    if arguments.inside:
        return inside(*arguments.inside)

    command("chat", "-n", QUESTION)
    result: dict[str, Any] = {
        "help_s": median_of(arguments.runs, lambda: command("--help")[1]),
        "first_prompt_s": median_of(arguments.runs, first_prompt),
        "first_token_s": median_of(
            arguments.runs, lambda: command("chat", "-n", "--temperature", "0", stdin=QUESTION)[0]
        ),
    }
    rounds = [{kind: in_process(kind, "speed") for kind in KINDS} for _ in range(arguments.runs)]
    result["kinds"] = {
        kind: {
            name: statistics.median(one[kind][name] for one in rounds) for name in rounds[0][kind]
        }
        for kind in KINDS
    }
    for kind in KINDS:
        result["kinds"][kind]["perplexity"] = in_process(kind, "perplexity")
    result["turns"] = in_process("int8", "turns")
    show(result)
    if arguments.save:
        machine = {
            "processor": processor(),
            "cores": os.cpu_count(),
            "python": platform.python_version(),
            "date": datetime.date.today().isoformat(),
        }
        (HERE / "results" / "basics.json").write_text(
            json.dumps(
                {"command": "python benchmarks/basics.py --save", "machine": machine} | result,
                indent=2,
            )
            + "\n"
        )


def show(result: dict[str, Any]) -> None:
    print(f"llmchat --help                      {result['help_s']:.2f} s")
    print(f"process start to first prompt       {result['first_prompt_s']:.2f} s")
    print(f"process start to first token        {result['first_token_s']:.2f} s")
    read, first = result["turns"]["read_tokens"], result["turns"]["first_token_s"]
    print(f"turn 2 / turn 10, tokens read       {read[1]} / {read[9]}")
    print(f"turn 2 / turn 10, first token       {first[1]:.3f} s / {first[9]:.3f} s\n")
    print(
        f"{'weights':8} {'decode tok/s':>13} {'prefill tok/s':>14} {'load s':>8} {'weights MB':>11}"
        f" {'peak MB':>8} {'perplexity':>11}"
    )
    for kind, row in result["kinds"].items():
        weights_mb, peak_mb = row["weight_bytes"] / 1e6, row["peak_bytes"] / 1e6
        print(
            f"{kind:8} {row['decode_tps']:13.1f} {row['prefill_tps']:14.0f} {row['load_s']:8.2f}"
            f" {weights_mb:11.0f} {peak_mb:8.0f} {row['perplexity']:11.3f}"
        )


def processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    flags = next((line for line in lines if line.startswith("flags")), "")
    widest = next(
        (name for name in ("amx_tile", "avx512_bf16", "avx512f", "avx2") if name in flags), ""
    )
    return f"{platform.machine()} {widest}"


if __name__ == "__main__":
    main()
