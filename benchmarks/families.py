#!/usr/bin/env python3
"""Every large family on random weights of real shapes: int8 here, Q8_0 in llama.cpp, in turns.

    python benchmarks/families.py WORK --peers-python PYTHON --llama-source SOURCE --save
    python benchmarks/families.py WORK --shape qwen3 --scale small      # one, in a minute
    python benchmarks/families.py WORK --shape moe-16b …                # 16 GB, 40 GB of disk
    python benchmarks/families.py WORK --before TREE …                  # also an older llmchat
    python benchmarks/tables.py                                         # into README and docs

llama.cpp must be compiled for the machine. PYTHON is that of `native`, and SOURCE the folder
vendor/llama.cpp in what the last line downloads:

    python -m venv native
    export CMAKE_ARGS=-DGGML_NATIVE=ON
    native/bin/pip install --no-binary llama-cpp-python llama-cpp-python
    pip download --no-deps --no-build-isolation --no-binary :all: llama-cpp-python

Each contender runs in a process of its own; all are measured in turns, and medians count. The
Llama of 1.1 billion parameters takes part in each round, as the reference. With --before, so does
the engine of an older source tree (`git worktree add TREE COMMIT`). WORK holds the files of one
shape at a time; --keep leaves them there. --save writes benchmarks/results/families.json, one entry
for each shape and scale. family_shapes.py has the sizes.
"""

import argparse
import datetime
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine import LEAST, LLAMA_CPP, attempt, build_of, note, verdict
from families_inside import PREFILL, SHORT, prompt_ids
from family_shapes import SCALES, SHAPES, chosen
from random_checkpoint import GGUF

HERE = Path(__file__).parent
RESULTS = HERE / "results"
MEMORY, OURS, REFERENCE, BEFORE = "memory", "llmchat int8", "reference", "llmchat before"
OPENVINO = "OpenVINO GenAI Q8_0"
SUFFIXES = {
    OURS: "",
    REFERENCE: "_llama",
    LLAMA_CPP: "_llama_cpp",
    OPENVINO: "_openvino",
    BEFORE: "_before",
}
# For each kind of shape, what must be reached: a key of a result, and the least.
TARGETS: dict[str, dict[str, float]] = {
    "dense": {"decode_as_llama": 0.9, "prefill_as_llama": 0.9, "together": 5.0},
    "experts": {"memory_share": 0.7, "prefill_over_llama_cpp": 2.0},
    "hybrid": {"decode_over_llama_cpp": 1.0, "prefill_over_llama_cpp": 1.0},
}
# Against --before, in decode and prefill.
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
    """Where files lie and who takes part. python: one with llama.cpp; before: an older tree."""

    work: Path
    scale: str
    rounds: int
    python: str | None
    source: Path | None
    before: Path | None = None

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
        for prefix in ((), *([self._of_before()] if self.before else [])):
            # -P: the working directory must not come before the older tree.
            _checked([*prefix, sys.executable, "-P", "-m", "llmchat", *asking, *format_], "Hello")

    def contenders(self, name: str) -> list[Any]:
        from llmchat.bench.interleave import Competitor, python_module

        memory = python_module("llmchat.bench.worker", MEMORY, "{}")
        own, reference = (_int8_bytes(self.folder(one)) for one in (name, "llama"))
        found = [
            Competitor(MEMORY, memory, measures=("bandwidth",)),
            Competitor(REFERENCE, self._inside("llama"), reference),
            Competitor(OURS, self._inside(name), own),
        ]
        if self.before:
            found.append(Competitor(BEFORE, (*self._of_before(), *self._inside(name)), own))
        return found + self._peers(self.folder(name) / GGUF)

    def _inside(self, name: str) -> tuple[str, ...]:
        return (sys.executable, str(HERE / "families_inside.py"), str(self.folder(name)))

    def _of_before(self) -> tuple[str, ...]:
        """What a command begins with to run the older tree, with prepared copies of its own."""
        kept = (f"{name}={folder}-before" for name, folder in kept_in(self.work).items())
        return ("env", f"PYTHONPATH={self.before}", *kept)

    def _peers(self, gguf: Path) -> list[Any]:
        """The peers in `python` that read the Q8_0 file."""
        from llmchat.bench import peer_protocol
        from llmchat.bench.interleave import Competitor, python_file

        if not self.python or not gguf.exists():
            return []
        command = python_file(self.python, Path(peer_protocol.__file__))
        installed = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
        task = {"gguf": str(gguf), "short": prompt_ids(SHORT), "long": prompt_ids(PREFILL)}
        return [
            Competitor(
                peer,
                (*command, "serve"),
                gguf.stat().st_size,
                task=json.dumps(task | {"peer": peer}),
            )
            for peer in peer_protocol.OF_GGUF
            if peer in installed
        ]


def _int8_bytes(folder: Path) -> int:
    """Bytes of a checkpoint's weights when all of them are int8."""
    from llmchat.engines.transformers.weights import open_tensors
    from llmchat.memory_estimate import parameters

    return parameters(open_tensors(folder, ()).shapes)


def kept_in(work: Path) -> dict[str, str]:
    """The folders of llmchat's own files, so that nothing of the user's takes part."""
    kept = work / "kept"
    names = ("CACHE", "CONFIG", "DATA", "STATE")
    return {f"XDG_{name}_HOME": str(kept / name.lower()) for name in names}


def _checked(command: list[str], stdin: str = "") -> None:
    """Raises RuntimeError with the last line that a command wrote."""
    done = subprocess.run(command, input=stdin, capture_output=True, text=True)
    if done.returncode:
        lines = done.stderr.strip().splitlines() or ["it ended without a word"]
        raise RuntimeError(f"{' '.join(command[1:3])}: {lines[-1]}")


def measure(bench: Bench, name: str) -> dict[str, Any]:
    """The result of one shape. Raises MeasurementFailed if our engine could not be measured."""
    from llmchat.bench import machine
    from llmchat.bench.interleave import Measurements, batches, measure_in_turn, started

    measurements, apart = Measurements(), dict[str, Any]()
    env = {**os.environ, "PYTHONPATH": str(HERE.parent)}
    # Those that fit into memory together are measured in turns.
    for batch in batches(bench.contenders(name), machine.room("cpu", machine.Machine(0))):
        with started(batch, env, measurements.fail, note) as processes:
            measure_in_turn(processes, bench.rounds, measurements, note, warm_s=0.5)
            apart |= _measured_apart(processes, measurements.failures)
    if OURS in measurements.failures:
        raise measurements.failures[OURS]
    return compare(measurements, apart, Work.of(bench.folder(name)), Work.of(bench.folder("llama")))


def _measured_apart(processes: list[Any], failures: dict[str, Any]) -> dict[str, Any]:
    """What only one contender measures."""
    found: dict[str, Any] = {}
    for process in processes:
        if process.competitor.label == OURS and OURS not in failures:
            note("sixteen answers at once")
            found["together"] = attempt(lambda process=process: process.ask("together"))[0]
            found["executor"] = process.ask("executor")
        elif process.competitor.label == LLAMA_CPP:
            found["build"] = build_of([process], failures)
    return found


def compare(measurements: Any, apart: dict[str, Any], own: Work, reference: Work) -> dict[str, Any]:
    """Speeds in tokens a second, and the ratios that the targets are about; None if unknown."""
    rates = {
        f"{what}{suffix}": measurements.rate(label, what)
        for what in ("decode", "prefill")
        for label, suffix in SUFFIXES.items()
    }
    limit, together = measurements.rate(MEMORY, "bandwidth"), apart.get("together") or {}
    failed = {label: failure.message for label, failure in measurements.failures.items()}
    faster = {what: _ratio(rates[what], rates[f"{what}_before"]) for what in ("decode", "prefill")}
    return rates | {
        "decode_faster": faster["decode"],
        "prefill_faster": faster["prefill"],
        "faster": min(filter(None, faster.values()), default=None),
        "decode_as_llama": _ratio(rates["decode"], rates["decode_llama"], own.bytes,
                                  reference.bytes),
        "prefill_as_llama": _ratio(rates["prefill"], rates["prefill_llama"], own.madds,
                                   reference.madds),
        "decode_over_llama_cpp": _ratio(rates["decode"], rates["decode_llama_cpp"]),
        "prefill_over_llama_cpp": _ratio(rates["prefill"], rates["prefill_llama_cpp"]),
        "decode_over_openvino": _ratio(rates["decode"], rates["decode_openvino"]),
        "prefill_over_openvino": _ratio(rates["prefill"], rates["prefill_openvino"]),
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
    if result.get("faster") and name in FASTER:
        targets["faster"] = FASTER[name]
    return {
        key: "not measured" if result.get(key) is None else verdict(LEAST, least, result[key])
        for key, least in targets.items()
    }


# ---- results


def stored() -> dict[str, Any]:
    file = RESULTS / "families.json"
    found: dict[str, Any] = json.loads(file.read_text("utf-8")) if file.exists() else {}
    return found


def save(scale: str, name: str, result: dict[str, Any]) -> None:
    results = stored()
    results.setdefault(scale, {})[name] = result
    text = json.dumps(results, indent=2, ensure_ascii=False) + "\n"
    (RESULTS / "families.json").write_text(text, "utf-8")


HEADS = {
    "decode": "decode",
    "memory_share": "of memory",
    "decode_as_llama": "as Llama",
    "decode_over_llama_cpp": "/ llama.cpp",
    "decode_over_openvino": "/ OpenVINO",
    "decode_faster": "/ before",
    "prefill": "prefill",
    "prefill_as_llama": "as Llama",
    "prefill_over_llama_cpp": "/ llama.cpp",
    "prefill_over_openvino": "/ OpenVINO",
    "prefill_faster": "/ before",
    "together": "16 at once",
}


def cells(result: dict[str, Any], keys: Iterable[str] = HEADS) -> list[str]:
    return [_cell(key, result.get(key)) for key in keys]


def _cell(key: str, value: float | None) -> str:
    if value is None:
        return "–"
    if key in ("decode", "prefill"):
        return f"{value:,.0f}" if value >= 100 else f"{value:.1f}"
    return f"{100 * value:.0f} %" if key == "memory_share" else f"{value:.2f} ×"


def markdown(scale: str) -> str:
    """The table of docs/bench.md from the stored results, without columns that are empty."""
    results = stored().get(scale, {})
    keys = [key for key in HEADS if any(row.get(key) is not None for row in results.values())]
    lines = [f"| | {' | '.join(HEADS[key] for key in keys)} |", f"|---|{'---|' * len(keys)}"]
    for name, shape in SHAPES.items():
        if name in results:
            lines.append(f"| {shape.like} | {' | '.join(cells(results[name], keys))} |")
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
                save(bench.scale, name, result)
            show(name, result)
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
    """The files of a shape, and the int8 copies that were made of it."""
    folder = bench.folder(name)
    copies = (bench.work / "kept").glob(f"cache*/llmchat/prepared/*--{folder.name}-*")
    for made in (folder, *copies):
        shutil.rmtree(made, ignore_errors=True)


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
    parser.add_argument("work", type=Path)
    parser.add_argument("--shape", action="append", choices=SHAPES, default=[])
    parser.add_argument("--scale", choices=SCALES, default="full")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--peers-python")
    parser.add_argument("--llama-source", type=Path)
    parser.add_argument("--before", type=Path)
    parser.add_argument("--keep", action="store_true")
    parser.add_argument("--save", action="store_true")
    arguments = parser.parse_args()
    work = arguments.work.resolve()
    os.environ |= kept_in(work)
    bench = Bench(
        work, arguments.scale, arguments.rounds, arguments.peers_python, arguments.llama_source,
        arguments.before and arguments.before.resolve(),
    )  # fmt: skip
    run(bench, chosen(arguments.shape), arguments)


if __name__ == "__main__":
    main()
