#!/usr/bin/env python3
"""The engine against its targets: other programs on the same weights, and the memory's bandwidth.

usage: python benchmarks/engine.py MODELS [--peers-python PYTHON] [--only smol|1b] [--rounds N]
                                          [--all-peers] [--save]

MODELS is a folder with two checkpoints: smol/ (SmolLM2-135M-Instruct) and 1b/ (a Llama with 1.1
billion random weights, as fast as any model of its size). Each has config.json, model.safetensors,
the tokenizer, and optionally a *Q8_0.gguf; a missing one is written. Converted files and prepared
copies are kept in MODELS. --peers-python names a Python with llama-cpp-python, compiled for this
machine as docs/bench.md shows, and ctranslate2.

Each competitor runs in its own process. They are measured in turns, one at a time; results are
medians. --save writes benchmarks/results/engine.json.
"""

import argparse
import datetime
import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
# How to compare: at least, or at most, so much.
LEAST, MOST = "≥", "≤"
TARGETS: dict[str, tuple[str, str, dict[str, float]]] = {
    "decode / llama.cpp Q8_0": ("×", LEAST, {"smol": 1.2, "1b": 2.0}),
    "prefill / llama.cpp Q8_0": ("×", LEAST, {"smol": 2.0, "1b": 2.0}),
    "decode / CTranslate2 int8": ("×", LEAST, {"smol": 1.0, "1b": 1.0}),
    "decode, share of the memory's speed": ("%", LEAST, {"1b": 80}),
    "prefill / CTranslate2 int8": ("×", LEAST, {"smol": 1.2, "1b": 1.3}),
    "first token, turn 20 / turn 2": ("×", MOST, {"smol": 1.3, "1b": 1.3}),
    "decode, live LoRA / none": ("×", LEAST, {"smol": 0.9, "1b": 0.93}),
    "decode of repeated text, drafts / none": ("×", LEAST, {"smol": 1.4, "1b": 1.6}),
    "process start to first token": ("s", MOST, {"smol": 2.5, "1b": 3.5}),
    "peak memory over int8 bytes": ("GB", MOST, {"smol": 0.6, "1b": 0.7}),
    "perplexity, int8 over bf16": ("%", MOST, {"smol": 0.5}),
}
# Work before each measurement: on a virtual machine, a process reads memory slowly for some
# seconds after a sleep.
WARM_S = 6.0
OURS, MEMORY, REPEATS = "llmchat int8", "memory", "llmchat repeats"
LLAMA_CPP = "llama.cpp Q8_0"
# What our engine measures by itself, and how often; each takes its own turns.
TIMES = {"turns": 9, "adapter": 5, "drafts": 2}


class Findings:
    """Rows of the table, in order; what could not be measured says why."""

    def __init__(self, checkpoint: str):
        self.checkpoint = checkpoint
        self.rows: list[dict[str, Any]] = []

    def add(
        self,
        name: str,
        ours: float | None,
        peer: float | None = None,
        *,
        value: float | None = None,
        why: str = "",
        **more: Any,
    ) -> None:
        """value: compared with the target; ours / peer by default. why: the reason for no value."""
        unit, sense, targets = TARGETS[name]
        target = targets.get(self.checkpoint)
        if value is None and ours is not None and peer:
            value = ours / peer
        row = {
            "checkpoint": self.checkpoint,
            "row": name,
            "unit": unit,
            "sense": sense,
            "target": target,
            "ours": ours,
            "peer": peer,
            "value": value,
        }
        row["verdict"] = f"not measured: {why}" if value is None else verdict(sense, target, value)
        self.rows.append({key: field for key, field in row.items() if field is not None} | more)
        print(line(self.rows[-1]), flush=True)


def verdict(sense: str, target: float | None, value: float) -> str:
    if target is None:
        return "-"
    met = value >= target if sense == LEAST else value <= target
    return "met" if met else f"missed by {abs(value / target - 1):.0%}"


def line(row: dict[str, Any]) -> str:
    def number(name: str) -> str:
        return f"{row[name]:,.4g}" if name in row else ""

    target = f"{row['sense']} {row['target']:g} {row['unit']}" if "target" in row else ""
    value = f"{number('value')} {row['unit']}" if "value" in row else ""
    head = f"{row['checkpoint']:5} {row['row']:40} {target:>10} {value:>10}"
    return f"{head}  {number('ours'):>8} {number('peer'):>8}  {row['verdict']}"


def attempt(measure: Callable[[], Any]) -> tuple[Any, str]:
    """A result, or why there is none: one broken measurement leaves the others."""
    from llmchat.errors import LlmchatError

    try:
        return measure(), ""
    except LlmchatError as error:
        return None, error.message
    except Exception as error:
        return None, f"{type(error).__name__}: {error}"


def processes(
    folder: Path, python: str | None, everyone: bool
) -> tuple[list[Any], dict[str, str], dict[str, str]]:
    """Who is measured, who is not and why, and the versions of their packages."""
    from llmchat.bench import machine
    from llmchat.bench.interleave import Competitor, python_file, python_module
    from llmchat.bench.peers import Peers
    from llmchat.models.loading import tokenizer
    from llmchat.models.locate import locate
    from llmchat.models.opener import preset_of
    from llmchat.settings import World

    world = World.real()
    model = locate(preset_of(world, model=str(folder), weights="int8"), world)
    found, absent, versions = Peers(world, python).competitors(
        model, "cpu", machine.room("cpu", machine.Machine(0)), tokenizer(model)
    )
    named = ("llama.cpp", "CTranslate2", *(("transformers",) if everyone else ()))
    peers = [competitor for competitor, _ in found if competitor.label.startswith(named)]
    competitors = [
        Competitor(
            MEMORY, python_module("llmchat.bench.worker", MEMORY, "{}"), measures=("bandwidth",)
        ),
        Competitor(
            OURS, python_file(sys.executable, HERE / "engine_inside.py", str(folder), "chat")
        ),
        *peers,
    ]
    return competitors, dict(line.split(": ", 1) for line in absent), versions


def speeds(
    competitors: list[Any],
    rounds: int,
    findings: Findings,
    absent: dict[str, str],
    bytes_per_token: float,
) -> dict[str, Any]:
    """The rows that compare competitors, and those that our engine's process measures alone."""
    from llmchat.bench.interleave import Measurements, measure_in_turn, started

    measurements = Measurements()
    with started(competitors, os.environ, measurements.fail, note) as loaded:
        measure_in_turn(loaded, rounds, measurements, note, WARM_S)
        ours = next((one for one in loaded if one.competitor.label == OURS), None)
        build = build_of(loaded, measurements.failures)
        apart: dict[str, list[tuple[Any, str]]] = {}
        for what, times in TIMES.items():
            if what == "drafts" and findings.checkpoint != "smol":
                continue
            note(f"{OURS}: {what}")
            apart[what] = (
                [attempt(lambda what=what: ours.ask(what)) for _ in range(times)]
                if ours and OURS not in measurements.failures
                else []
            )
    absent |= {label: failure.message for label, failure in measurements.failures.items()}

    def against(name: str, what: str, peer: str) -> None:
        own, other = measurements.rate(OURS, what), measurements.rate(peer, what)
        why = absent.get(OURS) or absent.get(peer) or "it was not asked"
        findings.add(
            name,
            own,
            other,
            why=why,
            runs={"ours": measurements.rates(OURS, what), "peer": measurements.rates(peer, what)},
        )

    against("decode / llama.cpp Q8_0", "decode", LLAMA_CPP)
    against("prefill / llama.cpp Q8_0", "prefill", LLAMA_CPP)
    against("decode / CTranslate2 int8", "decode", "CTranslate2 int8")
    decode, limit = measurements.rate(OURS, "decode"), measurements.rate(MEMORY, "bandwidth")
    share = 100 * decode * bytes_per_token / limit if decode and limit else None
    findings.add(
        "decode, share of the memory's speed",
        decode,
        None,
        value=share,
        why=absent.get(OURS, ""),
        bytes_per_token=bytes_per_token,
    )
    against("prefill / CTranslate2 int8", "prefill", "CTranslate2 int8")
    pair(findings, "first token, turn 20 / turn 2", apart["turns"], "turn 20", "turn 2", absent)
    pair(findings, "decode, live LoRA / none", apart["adapter"], "live", "none", absent)
    if findings.checkpoint == "smol":
        pair(
            findings, "decode of repeated text, drafts / none", apart["drafts"], "on", "off", absent
        )
    return {
        "read_bytes_per_second": limit,
        "llama_cpp_build": build,
        "rates": {
            label: {what: measurements.rate(label, what) for what in of}
            for label, of in measurements.runs.items()
        },
    }


def build_of(processes: list[Any], failures: dict[str, Any]) -> str:
    """What llama.cpp reports that it was built with; "" where it was not measured."""
    found = [process for process in processes if process.competitor.label == LLAMA_CPP]
    return found[0].ask("build") if found and LLAMA_CPP not in failures else ""


def pair(
    findings: Findings,
    name: str,
    tries: list[tuple[Any, str]],
    ours: str,
    other: str,
    absent: dict[str, str],
) -> None:
    """A row of two speeds of our own."""
    found = [result for result, _ in tries if result]
    if not found:
        return findings.add(
            name,
            None,
            why=next((why for _, why in tries), absent.get(OURS, "the engine could not be loaded")),
        )
    if any(result.get("same") is False for result in found):
        return findings.add(name, None, why="the tokens differ with drafts on and off")
    return findings.add(
        name,
        *(statistics.median(result[key] for result in found) for key in (ours, other)),
        runs=found,
    )


def repeats(folder: Path, findings: Findings) -> None:
    """Prompt-lookup decoding on a copy of the checkpoint that repeats its prompt with changes."""
    from engine_inside import save_repeating

    from llmchat.bench.interleave import Competitor, CompetitorProcess, python_file

    def run() -> list[Any]:
        copy = save_repeating(folder)
        process = CompetitorProcess(
            Competitor(
                REPEATS,
                python_file(sys.executable, HERE / "engine_inside.py", str(copy), "repeats"),
            ),
            os.environ,
        )
        try:
            return [process.ask("drafts") for _ in range(2)]
        finally:
            process.close()

    found, why = attempt(run)
    pair(
        findings,
        "decode of repeated text, drafts / none",
        [(one, "") for one in found or ()] or [(None, why)],
        "on",
        "off",
        {},
    )


def starts(folder: Path, findings: Findings, int8_bytes: int) -> None:
    """One-shots of the real command, and a fresh process's memory after 541 + 64 tokens."""
    from basics import command

    from llmchat.bench.interleave import Competitor, CompetitorProcess, python_module

    asking = (
        "chat",
        "-n",
        "-q",
        "--temperature",
        "0",
        "--max-tokens",
        "8",
        "--weights",
        "int8",
        "-m",
        str(folder),
    )
    found, why = attempt(
        lambda: [command(*asking, stdin="What is the capital of France?")[0] for _ in range(4)][1:]
    )
    findings.add(
        "process start to first token",
        None,
        value=statistics.median(found) if found else None,
        why=why,
        runs=found,
    )

    def peak() -> Any:
        flags = json.dumps({"model": str(folder), "weights": "int8"})
        process = CompetitorProcess(
            Competitor("fresh", python_module("llmchat.bench.worker", "engine", flags)), os.environ
        )
        try:
            process.ask("prefill"), process.ask("decode")
            return process.ask("peak")
        finally:
            process.close()

    held, why = attempt(peak)
    over = (held - int8_bytes) / 1e9 if held else None
    findings.add(
        "peak memory over int8 bytes",
        held and held / 1e9,
        None,
        value=over,
        why=why,
        int8_bytes=int8_bytes,
    )


def perplexities(folder: Path, findings: Findings) -> None:
    """int8 against bf16 on the first chapters of Moby-Dick."""
    from llmchat.bench.interleave import Competitor, CompetitorProcess, python_file

    def of(weights: str) -> float:
        process = CompetitorProcess(
            Competitor(
                weights,
                python_file(
                    sys.executable, HERE / "engine_inside.py", str(folder), f"perplexity {weights}"
                ),
            ),
            os.environ,
        )
        try:
            return float(process.ask("perplexity"))
        finally:
            process.close()

    found, why = attempt(lambda: [of("int8"), of("bf16")])
    int8, bf16 = found or (None, None)
    findings.add(
        "perplexity, int8 over bf16",
        int8,
        bf16,
        value=100 * (int8 / bf16 - 1) if int8 and bf16 else None,
        why=why,
    )


def checkpoint(
    name: str, models: Path, arguments: argparse.Namespace
) -> tuple[list[dict[str, Any]], dict[str, Any], dict[str, str]]:
    from basics import command

    from llmchat.bench.cost import read_per_token
    from llmchat.hub import inspect_folder
    from llmchat.memory_estimate import parameters
    from llmchat.models.locate import locate
    from llmchat.models.opener import preset_of
    from llmchat.settings import World

    folder, findings = models / name, Findings(name)
    world = World.real()
    base = locate(preset_of(world, model=str(folder), weights="int8"), world).base
    assert base
    here = inspect_folder(base)
    note(f"{name}: preparing")
    # The first chat with a model makes what later ones open.
    command(
        "chat",
        "-n",
        "-q",
        "--max-tokens",
        "1",
        "--weights",
        "int8",
        "-m",
        str(folder),
        stdin="Hello",
    )
    competitors, absent, versions = processes(folder, arguments.peers_python, arguments.all_peers)
    rates = speeds(
        competitors,
        arguments.rounds,
        findings,
        absent,
        read_per_token(here.shapes, here.config, "int8", 36),
    )
    if name != "smol":
        repeats(folder, findings)
    starts(folder, findings, parameters(here.shapes))
    if name == "smol":
        perplexities(folder, findings)
    return findings.rows, rates, versions


def note(what: str) -> None:
    print(f"\r\033[K{what}", end="\r" if sys.stderr.isatty() else "\n", file=sys.stderr, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("models", type=Path)
    parser.add_argument("--peers-python")
    parser.add_argument("--only", choices=("smol", "1b"))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--all-peers", action="store_true")
    parser.add_argument("--save", action="store_true")
    arguments = parser.parse_args()
    models = arguments.models.resolve()
    # Nothing of the user's own settings, server or copies takes part.
    os.environ |= {
        f"XDG_{name}_HOME": str(models / "kept" / name.lower())
        for name in ("CACHE", "CONFIG", "DATA", "STATE")
    }
    from llmchat.bench import machine

    started = time.perf_counter()
    rows: list[dict[str, Any]] = []
    rates, versions = {}, machine.versions()
    for name in (arguments.only,) if arguments.only else ("smol", "1b"):
        found, rates[name], more = checkpoint(name, models, arguments)
        rows += found
        versions |= more
    print("\n" + "\n".join(map(line, rows)))
    if arguments.save:
        result = {
            "command": "python benchmarks/engine.py MODELS --peers-python PYTHON --save",
            "date": datetime.date.today().isoformat(),
            "machine": machine.facts("cpu", machine.Machine(0)),
            "versions": versions,
            "rounds": arguments.rounds,
            "minutes": round((time.perf_counter() - started) / 60, 1),
            "rates": rates,
            "rows": rows,
        }
        (HERE / "results" / "engine.json").write_text(
            json.dumps(result, indent=2, ensure_ascii=False) + "\n"
        )


if __name__ == "__main__":
    main()
