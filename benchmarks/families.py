#!/usr/bin/env python3
"""Every large family on random weights of real shapes: int8 here, Q8_0 in llama.cpp, in turns.

    python benchmarks/families.py WORK --peers-python PYTHON --llama-source SOURCE --save
    python benchmarks/families.py WORK --shape qwen3 --scale small      # one, in a minute
    python benchmarks/families.py WORK --shape moe-16b …                # 16 GB, 40 GB of disk
    python benchmarks/families.py --markdown                            # the table of the docs

llama.cpp must be compiled for the machine. PYTHON is that of `native`, and SOURCE the folder
vendor/llama.cpp in what the last line downloads:

    python -m venv native
    export CMAKE_ARGS=-DGGML_NATIVE=ON
    native/bin/pip install --no-binary llama-cpp-python llama-cpp-python
    pip download --no-deps --no-build-isolation --no-binary :all: llama-cpp-python

Each contender runs in a process of its own; all are measured in turns, and medians count. The
Llama of 1.1 billion parameters takes part in each round, as the reference. WORK holds the files of
one shape at a time; --keep leaves them there. --save writes benchmarks/results/families.json, one
entry for each shape and scale; --as before writes families_before.json, and the table then shows
how often faster a family has become. family_shapes.py has the sizes.
"""

import argparse
import datetime
import json
import os
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine import LEAST, attempt, note, verdict
from families_inside import PREFILL, SHORT, prompt_ids
from family_shapes import SCALES, SHAPES, chosen
from random_checkpoint import GGUF

HERE = Path(__file__).parent
RESULTS = HERE / "results"
MEMORY, OURS, REFERENCE, LLAMA_CPP = "memory", "llmchat int8", "reference", "llama.cpp Q8_0"
# For each kind of shape, what must be reached: a key of a result, and the least.
TARGETS: dict[str, dict[str, float]] = {
    "dense": {"decode_as_llama": 0.9, "prefill_as_llama": 0.9, "together": 5.0},
    "experts": {"memory_share": 0.7, "prefill_over_llama_cpp": 2.0},
    "hybrid": {"decode_over_llama_cpp": 1.0, "prefill_over_llama_cpp": 1.0},
}
FASTER = {"gpt-neox": 2.5}
CONTEXT = SHORT + 32


@dataclass(frozen=True)
class Work:
    """What one token costs: bytes read by decoding, and multiply-adds of prefill."""

    bytes: float
    madds: float

    @classmethod
    def of(cls, folder: Path) -> "Work":
        from llmchat.bench import cost
        from llmchat.engines.checkpoint_files import read_json
        from llmchat.engines.transformers.weights import open_tensors

        config, shapes = read_json(folder / "config.json"), open_tensors(folder, ()).shapes
        inner = {name: shape for name, shape in shapes.items() if config["vocab_size"] not in shape}
        return cls(
            cost.read_per_token(shapes, config, "int8", CONTEXT),
            cost.read_per_token(inner, config, "int8", 0),
        )


@dataclass(frozen=True)
class Bench:
    """Where files lie and which peer takes part. python: one with llama.cpp, or None."""

    work: Path
    scale: str
    rounds: int
    python: str | None
    source: Path | None

    def folder(self, name: str) -> Path:
        return self.work / f"{name}-{self.scale}"

    def prepare(self, name: str) -> None:
        """Write the files of a shape, and the int8 copy that a first chat makes."""
        source = ("--llama-source", str(self.source)) if self.source else ()
        where = (name, str(self.folder(name)), "--scale", self.scale)
        note(f"{name}: writing its files")
        script = str(HERE / "random_checkpoint.py")
        _checked([sys.executable, script, *where, *source])
        note(f"{name}: preparing the int8 copy")
        asking = ("chat", "-n", "-q", "--max-tokens", "1", "--weights", "int8")
        format_ = ("--format", "chatml", "-m", str(self.folder(name)))
        _checked([sys.executable, "-m", "llmchat", *asking, *format_], "Hello")

    def contenders(self, name: str) -> list[Any]:
        from llmchat.bench.interleave import Competitor, python_file, python_module

        inside = HERE / "families_inside.py"
        memory = python_module("llmchat.bench.worker", MEMORY, "{}")
        found = [Competitor(MEMORY, memory, measures=("bandwidth",))]
        for label, of in ((REFERENCE, "llama"), (OURS, name)):
            command = python_file(sys.executable, inside, str(self.folder(of)))
            found.append(Competitor(label, command))
        return found + self._llama_cpp(self.folder(name) / GGUF)

    def _llama_cpp(self, gguf: Path) -> list[Any]:
        from llmchat.bench import peer_protocol
        from llmchat.bench.interleave import Competitor, python_file

        if not self.python or not gguf.exists():
            return []
        task = {"peer": LLAMA_CPP, "gguf": str(gguf), "short": prompt_ids(SHORT)}
        full = json.dumps(task | {"long": prompt_ids(PREFILL)})
        command = python_file(self.python, Path(peer_protocol.__file__), "serve")
        return [Competitor(LLAMA_CPP, command, task=full)]


def _checked(command: list[str], stdin: str = "") -> None:
    """Raises RuntimeError with the last line that a command wrote."""
    done = subprocess.run(command, input=stdin, capture_output=True, text=True)
    if done.returncode:
        lines = done.stderr.strip().splitlines() or ["it ended without a word"]
        raise RuntimeError(f"{' '.join(command[1:3])}: {lines[-1]}")


def measure(bench: Bench, name: str) -> dict[str, Any]:
    """The result of one shape. Raises MeasurementFailed if our engine could not be measured."""
    from llmchat.bench.interleave import Measurements, measure_in_turn, started

    measurements, apart = Measurements(), dict[str, Any]()
    env = {**os.environ, "PYTHONPATH": str(HERE.parent)}
    with started(bench.contenders(name), env, measurements.fail, note) as processes:
        measure_in_turn(processes, bench.rounds, measurements, note, warm_s=0.5)
        for process in processes:
            label = process.competitor.label
            if label == OURS and label not in measurements.failures:
                note(f"{name}: sixteen answers at once")
                apart["together"] = attempt(lambda process=process: process.ask("together"))[0]
                apart["executor"] = process.ask("executor")
            if label == LLAMA_CPP and label not in measurements.failures:
                apart["build"] = process.ask("build")
    if OURS in measurements.failures:
        raise measurements.failures[OURS]
    return compare(measurements, apart, Work.of(bench.folder(name)), Work.of(bench.folder("llama")))


def compare(measurements: Any, apart: dict[str, Any], own: Work, reference: Work) -> dict[str, Any]:
    """Speeds in tokens a second, and the ratios that the targets are about; None if unknown."""
    rates = {
        f"{what}{suffix}": measurements.rate(label, what)
        for what in ("decode", "prefill")
        for label, suffix in ((OURS, ""), (REFERENCE, "_llama"), (LLAMA_CPP, "_llama_cpp"))
    }
    limit, together = measurements.rate(MEMORY, "bandwidth"), apart.get("together") or {}
    failed = {label: failure.message for label, failure in measurements.failures.items()}
    return rates | {
        "decode_as_llama": _ratio(rates["decode"], rates["decode_llama"], own.bytes,
                                  reference.bytes),
        "prefill_as_llama": _ratio(rates["prefill"], rates["prefill_llama"], own.madds,
                                   reference.madds),
        "decode_over_llama_cpp": _ratio(rates["decode"], rates["decode_llama_cpp"]),
        "prefill_over_llama_cpp": _ratio(rates["prefill"], rates["prefill_llama_cpp"]),
        "memory_share": _ratio(rates["decode"], limit, own.bytes),
        "together": together.get("ratio"),
        "together_tps": together.get("many"),
        "bytes_per_token": own.bytes,
        "madds_per_token": own.madds,
        "read_bytes_per_second": limit,
        "executor": apart.get("executor"),
        "llama_cpp_build": apart.get("build"),
        "not_measured": failed,
        "runs": {
            label: {what: [round(rate, 2) for rate in measurements.rates(label, what)]
                    for what in of}
            for label, of in measurements.runs.items() if label != MEMORY
        },
    }  # fmt: skip


def _ratio(
    own: float | None, other: float | None, work: float = 1.0, other_work: float = 1.0
) -> float | None:
    """How much more work a second: speeds times what one token costs each of them."""
    return own * work / (other * other_work) if own and other else None


def verdicts(name: str, result: dict[str, Any]) -> dict[str, str]:
    """For each target of a shape: met, missed by how much, or not measured."""
    targets = dict(TARGETS[SHAPES[name].kind])
    if "faster" in result and name in FASTER:
        targets["faster"] = FASTER[name]
    return {
        key: "not measured" if result.get(key) is None else verdict(LEAST, least, result[key])
        for key, least in targets.items()
    }


# ---- results


def file_of(label: str) -> Path:
    return RESULTS / f"families{'_before' if label == 'before' else ''}.json"


def stored(label: str = "") -> dict[str, Any]:
    file = file_of(label)
    found: dict[str, Any] = json.loads(file.read_text("utf-8")) if file.exists() else {}
    return found


def save(label: str, scale: str, name: str, result: dict[str, Any]) -> None:
    results = stored(label)
    results.setdefault(scale, {})[name] = result
    text = json.dumps(results, indent=2, ensure_ascii=False) + "\n"
    file_of(label).write_text(text, "utf-8")


def with_before(scale: str, name: str, result: dict[str, Any]) -> dict[str, Any]:
    """The result, and how many times faster than before it decodes and prefills.

    faster: the smaller of both. Speeds are compared as fractions of the machine's: the memory's
    speed for decode, llama.cpp's for prefill, since the two were not measured in one session.
    """
    before = stored("before").get(scale, {}).get(name)
    if not before:
        return result
    decode = _ratio(result["memory_share"], before["memory_share"])
    prefill = _ratio(result["prefill_over_llama_cpp"], before["prefill_over_llama_cpp"])
    known = [ratio for ratio in (decode, prefill) if ratio]
    more = {"decode_faster": decode, "prefill_faster": prefill}
    return result | more | ({"faster": min(known)} if known else {})


HEADS = {
    "decode": "decode", "memory_share": "of memory", "decode_as_llama": "as Llama",
    "decode_over_llama_cpp": "/ llama.cpp", "decode_faster": "/ before", "prefill": "prefill",
    "prefill_as_llama": "as Llama", "prefill_over_llama_cpp": "/ llama.cpp",
    "prefill_faster": "/ before", "together": "16 at once",
}  # fmt: skip


def cells(result: dict[str, Any]) -> list[str]:
    def cell(key: str) -> str:
        value = result.get(key)
        if value is None:
            return "–"
        if key in ("decode", "prefill"):
            return f"{value:,.0f}" if value >= 100 else f"{value:.1f}"
        return f"{100 * value:.0f} %" if key == "memory_share" else f"{value:.2f} ×"

    return [cell(key) for key in HEADS]


def markdown(scale: str) -> str:
    """The table of docs/bench.md, from the stored results."""
    results = stored().get(scale, {})
    lines = [f"| | {' | '.join(HEADS.values())} |", f"|---|{'---|' * len(HEADS)}"]
    for name in SHAPES:
        if name in results:
            row = with_before(scale, name, results[name])
            lines.append(f"| {SHAPES[name].like} | {' | '.join(cells(row))} |")
    return "\n".join(lines)


def head() -> str:
    return f"{'':10}" + "".join(f"{name:>12}" for name in HEADS.values())


def show(name: str, result: dict[str, Any]) -> None:
    print(f"{name:10}" + "".join(f"{cell:>12}" for cell in cells(result)))
    missed = {key: told for key, told in verdicts(name, result).items() if told != "met"}
    for what, told in (missed | result["not_measured"]).items():
        print(f"{'':10}{what}: {told}")
    sys.stdout.flush()


def run(bench: Bench, names: list[str], arguments: argparse.Namespace) -> None:
    print(head(), flush=True)
    for name in names:
        result, why = attempt(lambda name=name: _prepared_and_measured(bench, name))
        if result:
            if arguments.save:
                save(arguments.label, bench.scale, name, result)
            show(name, with_before(bench.scale, name, result))
        else:
            print(f"{name:10}not measured: {why}", flush=True)
        if not arguments.keep and name != "llama":
            _remove(bench, name)
    if not arguments.keep:
        _remove(bench, "llama")


def _prepared_and_measured(bench: Bench, name: str) -> dict[str, Any]:
    started = time.perf_counter()
    bench.prepare(name)
    return measure(bench, name) | facts(started)


def _remove(bench: Bench, name: str) -> None:
    """The files of a shape, and the copies that were made of it."""
    shutil.rmtree(bench.folder(name), ignore_errors=True)
    if name == "llama":
        shutil.rmtree(bench.work / "kept", ignore_errors=True)


def facts(started: float) -> dict[str, Any]:
    from llmchat.bench import machine

    return {
        "date": datetime.date.today().isoformat(),
        "minutes": round((time.perf_counter() - started) / 60, 1),
        "load": round(os.getloadavg()[0], 1),
        "machine": machine.facts("cpu", machine.Machine(0)),
        "versions": machine.versions(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("work", type=Path, nargs="?")
    parser.add_argument("--shape", action="append", choices=SHAPES, default=[])
    parser.add_argument("--scale", choices=SCALES, default="full")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--peers-python")
    parser.add_argument("--llama-source", type=Path)
    parser.add_argument("--keep", action="store_true")
    parser.add_argument("--save", action="store_true")
    parser.add_argument("--as", dest="label", choices=("now", "before"), default="now")
    parser.add_argument("--markdown", action="store_true")
    arguments = parser.parse_args()
    if arguments.markdown:
        print(markdown(arguments.scale))
        return
    if arguments.work is None:
        parser.error("WORK, a folder for the files, is required")
    work = arguments.work.resolve()
    # Nothing of the user's own settings, server or copies takes part.
    os.environ |= {
        f"XDG_{name}_HOME": str(work / "kept" / name.lower())
        for name in ("CACHE", "CONFIG", "DATA", "STATE")
    }
    python, source = arguments.peers_python, arguments.llama_source
    bench = Bench(work, arguments.scale, arguments.rounds, python, source)
    run(bench, chosen(arguments.shape), arguments)


if __name__ == "__main__":
    main()
