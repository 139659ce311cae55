#!/usr/bin/env python3
"""Quantised files with their own numbers: llmchat, its int8, llmchat's peers, on the same file.

    python benchmarks/quantised.py WORK FILE.gguf … --peers-python PYTHON [--rounds N] [--save]

llama.cpp must be compiled for the machine; the head of families.py shows how. PYTHON is that of its
environment. Each contender runs in a process of its own; all are measured in turns, and medians
count. Besides: how long a pull of the file takes, what it leaves on the disk, the start of a
one-shot until its first token, and the memory of a process that reads 541 tokens and answers 64.

`llmchat int8` runs the same weights in int8: they are dequantised to a checkpoint in WORK first,
3 GB for a model of 1.5 billion. --no-int8 leaves it out. --save writes
benchmarks/results/quantised.json, one entry for each file; a processor without AVX-512 saves to
quantised_avx2.json.
"""

import argparse
import contextlib
import datetime
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from basics import processor
from engine import LEAST, LLAMA_CPP, MOST, attempt, note, verdict
from families import kept_in
from families_inside import PREFILL, SHORT, prompt_ids

HERE = Path(__file__).parent
RESULTS = HERE / "results"
OURS, INT8, MEMORY = "llmchat", "llmchat int8", "memory"
# Speeds are compared with those of others; seconds and gigabytes stand for themselves.
TARGETS = {
    "decode / llama.cpp": (LEAST, 1.15),
    "decode / llmchat int8": (LEAST, 1.4),
    "prefill / llama.cpp": (LEAST, 3.0),
    "memory over the file, GB": (MOST, 0.4),
    "start to first token, s": (MOST, 2.5),
    "pull, s": (MOST, 15.0),
    "disk / file": (MOST, 1.1),
}


def llmchat(*arguments: str, stdin: str = "", environment: dict[str, str]) -> float:
    """Run the command; returns the seconds until the first byte of its answer, or its end."""
    started = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-m", "llmchat", *arguments],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment,
    )  # fmt: skip
    assert process.stdin and process.stdout and process.stderr
    process.stdin.write(stdin.encode())
    process.stdin.close()
    process.stdout.read(1)
    seconds = time.perf_counter() - started
    process.stdout.read()
    errors = process.stderr.read().decode()
    if process.wait():
        raise RuntimeError(errors.strip().splitlines()[-1])
    return seconds


def pulled(file: Path, environment: dict[str, str], data: Path) -> dict[str, float]:
    """Seconds of a pull of the file, and the bytes that it leaves for each one of the file."""
    with contextlib.suppress(RuntimeError):
        llmchat("rm", "-y", str(file), environment=environment)
    before = size_of(data)
    seconds = llmchat("pull", str(file), environment=environment)
    return {"pull, s": seconds, "disk / file": (size_of(data) - before) / file.stat().st_size}


def size_of(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def starts(file: Path, environment: dict[str, str]) -> dict[str, float]:
    asking = ("chat", "-n", "-q", "--temperature", "0", "--max-tokens", "8", "-m", str(file))
    question = "What is the capital of France?"
    runs = [llmchat(*asking, stdin=question, environment=environment) for _ in range(4)]
    return {"start to first token, s": statistics.median(runs[1:])}


def dequantised(file: Path, work: Path) -> Path:
    """The same weights as a 16-bit checkpoint. Returns its folder, written once."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils.quantization_config import GgufConfig

    target = work / f"{file.stem}-bf16"
    if (target / "config.json").exists():
        return target
    where: dict[str, Any] = {
        "pretrained_model_name_or_path": str(file.parent), "gguf_file": file.name,
    }  # fmt: skip
    model = AutoModelForCausalLM.from_pretrained(
        **where, dtype=torch.bfloat16, quantization_config=GgufConfig(dequantize=True)
    )
    AutoTokenizer.from_pretrained(**where).save_pretrained(target)
    model.save_pretrained(target)
    return target


def inside(model: Path) -> tuple[str, ...]:
    return (sys.executable, str(HERE / "families_inside.py"), str(model))


def peers(file: Path, python: str | None) -> list[Any]:
    """Those in `python` that read GGUF files."""
    from llmchat.bench import peer_protocol
    from llmchat.bench.interleave import Competitor, python_file

    if not python:
        return []
    command = python_file(python, Path(peer_protocol.__file__))
    installed = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
    task = {"gguf": str(file), "short": prompt_ids(SHORT), "long": prompt_ids(PREFILL)}
    return [
        Competitor(
            peer.removesuffix(" Q8_0"), (*command, "serve"), file.stat().st_size,
            task=json.dumps(task | {"peer": peer}),
        )
        for peer in peer_protocol.OF_GGUF if peer in installed
    ]  # fmt: skip


def speeds(
    file: Path, int8: Path | None, python: str | None, rounds: int, environment: dict[str, str]
) -> dict[str, Any]:
    """Tokens a second of all contenders, in turns, and the peak memory of ours, alone."""
    from llmchat.bench.interleave import (
        Competitor,
        CompetitorProcess,
        Measurements,
        measure_in_turn,
        python_module,
        started,
    )

    ours = Competitor(OURS, inside(file))
    found = [
        Competitor(
            MEMORY, python_module("llmchat.bench.worker", MEMORY, "{}"), measures=("bandwidth",)
        ),
        ours,
        *([Competitor(INT8, inside(int8))] if int8 else []),
        *peers(file, python),
    ]
    measurements = Measurements()
    with started(found, environment, measurements.fail, note) as processes:
        measure_in_turn(processes, rounds, measurements, note, warm_s=2)
        named = {process.competitor.label: process for process in processes}
        llama_cpp = named.get(LLAMA_CPP.removesuffix(" Q8_0"))
        build = attempt(lambda: llama_cpp.ask("build"))[0] if llama_cpp else None
    alone = CompetitorProcess(ours, environment)
    try:
        alone.ask("prefill"), alone.ask("decode")
        peak = alone.ask("peak")
    finally:
        alone.close()
    labels = [one.label for one in found if one.label != MEMORY]
    return {
        "rates": {
            label: {what: measurements.rate(label, what) for what in ("decode", "prefill")}
            for label in labels
        },
        "runs": {
            label: {what: measurements.rates(label, what) for what in ("decode", "prefill")}
            for label in labels
        },
        "read_bytes_per_second": measurements.rate(MEMORY, "bandwidth"),
        "memory over the file, GB": (peak - file.stat().st_size) / 1e9,
        "llama_cpp_build": build,
        "not measured": {label: error.message for label, error in measurements.failures.items()},
    }


def ratios(rates: dict[str, dict[str, float | None]]) -> dict[str, float]:
    """How many times as fast as each other one: `decode / llama.cpp`, …"""
    found = {}
    for other in rates.keys() - {OURS}:
        for what in ("decode", "prefill"):
            own, theirs = rates[OURS][what], rates[other][what]
            if own and theirs:
                found[f"{what} / {other}"] = own / theirs
    return dict(sorted(found.items()))


def measure(file: Path, given: argparse.Namespace) -> dict[str, Any]:
    environment = {**os.environ, "PYTHONPATH": str(HERE.parent), **kept_in(given.work)}
    note(f"{file.name}: pulling")
    found: dict[str, Any] = {"file bytes": file.stat().st_size}
    found |= pulled(file, environment, given.work / "kept")
    found |= starts(file, environment)
    int8 = None if given.no_int8 else dequantised(file, given.work)
    if int8:
        llmchat(
            "chat", "-n", "-q", "--max-tokens", "1", "-m", str(int8), stdin="Hello",
            environment=environment,
        )  # fmt: skip
    found |= speeds(file, int8, given.peers_python, given.rounds, environment)
    return found | ratios(found["rates"])


def has_avx512() -> bool:
    cpuinfo = Path("/proc/cpuinfo")
    return not cpuinfo.exists() or "avx512f" in cpuinfo.read_text("utf-8")


def show(name: str, found: dict[str, Any]) -> None:
    print(name)
    for label, of in found["rates"].items():
        print(f"  {label:16}" + "".join(f" {what} {of[what] or 0:8.1f}" for what in of))
    for row, value in found.items():
        if isinstance(value, float) and row != "read_bytes_per_second":
            sense, target = TARGETS.get(row, (LEAST, None))
            print(f"  {row:28} {value:8.2f}  {verdict(sense, target, value)}")
    for label, why in found["not measured"].items():
        print(f"  {label}: not measured: {why}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("work", type=Path)
    parser.add_argument("files", type=Path, nargs="+")
    parser.add_argument("--peers-python")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--no-int8", action="store_true")
    parser.add_argument("--save", action="store_true")
    given = parser.parse_args()
    given.work.mkdir(parents=True, exist_ok=True)
    result = RESULTS / f"quantised{'' if has_avx512() else '_avx2'}.json"
    results = json.loads(result.read_text("utf-8")) if result.exists() else {}
    for file in given.files:
        found = measure(file.resolve(), given)
        show(file.name, found)
        about = {
            "command": f"python benchmarks/quantised.py WORK {file.name} --peers-python PYTHON",
            "date": datetime.date.today().isoformat(),
            "processor": processor(),
            "cores": os.cpu_count(),
            "rounds": given.rounds,
        }
        results[file.name] = about | found
        if given.save:
            text = json.dumps(results, indent=2, ensure_ascii=False) + "\n"
            result.write_text(text, "utf-8")


if __name__ == "__main__":
    main()
