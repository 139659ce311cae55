#!/usr/bin/env python3
"""The compiled kernels alone: products and whole passes, against the memory and the processor.

usage: python benchmarks/compiled_kernels.py MODEL_FOLDER [MODEL_FOLDER ...] [--runs N] [--save]

Each MODEL_FOLDER is a checkpoint of the Llama family. The best of N runs counts: what the kernels
can do, whatever else runs on the machine. Products take their weights from more matrices than the
caches hold. --save writes benchmarks/results/kernels.json.
"""

import argparse
import datetime
import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import torch

from llmchat.engines.checkpoint_files import read_json
from llmchat.engines.transformers.checkpoint_names import modern_config
from llmchat.engines.transformers.compiled import CompiledForward
from llmchat.engines.transformers.compiled.build import load_kernels
from llmchat.engines.transformers.compiled.kernels import Kernels, Weight
from llmchat.engines.transformers.executor import SequenceInput
from llmchat.engines.transformers.pytorch.int8 import quantise_rows
from llmchat.engines.transformers.quantised.packed import pack
from llmchat.engines.transformers.quantised.types import GroupedWeight, PackedWeight
from llmchat.engines.transformers.weights import open_tensors

HERE = Path(__file__).parent
COLD_BYTES = 300_000_000
PROMPT = 541


def best(runs: int, call: Callable[[], object]) -> float:
    """Seconds of the fastest of `runs` calls."""
    seconds = []
    for _ in range(runs):
        started = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - started)
    return min(seconds)


def read_speed(kernels: Kernels, runs: int) -> float:
    """Bytes a second that all threads together read from memory."""
    buffer = torch.ones(COLD_BYTES // 2**20 * 2**18, dtype=torch.int32)
    return 4 * buffer.numel() / best(runs, lambda: kernels.read_memory(buffer))


@dataclass(frozen=True)
class Speed:
    """Of one product: bytes of weights and multiply-adds a second."""

    kind: str
    out: int
    in_: int
    rows: int
    bytes_s: float
    madds_s: float

    def record(self) -> dict[str, float]:
        return {
            "kind": self.kind,
            "out": self.out,
            "in": self.in_,
            "rows": self.rows,
            "gb_s": round(self.bytes_s / 1e9, 1),
            "gop_s": round(2 * self.madds_s / 1e9),
        }

    def line(self, memory: float) -> str:
        return (
            f"{self.kind:5} {self.out:6} {self.in_:6} {self.rows:5} {self.bytes_s / 1e9:7.1f}"
            f" {100 * self.bytes_s / memory:9.0f}% {2 * self.madds_s / 1e9:8.0f}"
        )


def random_weight(kind: str, out: int, in_: int) -> tuple[Weight, int]:
    """A weight of a kind, and its bytes. The groups are those of GGUF."""
    if kind == "int8":
        return quantise_rows(torch.randn(out, in_)), out * in_
    blocks = torch.full((out, -(-in_ // 256)), 0.01, dtype=torch.float16)
    bits, group = {"Q4_K": (4, 32), "Q6_K": (6, 16)}[kind]
    codes, scales = (
        torch.randint(1 << width, (out, count), dtype=torch.uint8)
        for width, count in ((bits, in_), (6, -(-in_ // group)))
    )
    weight = GroupedWeight(codes, bits, group, 256, blocks, scales.to(torch.int8), zero=32)
    if kind == "Q4_K":
        weight = GroupedWeight(codes, bits, group, 256, blocks, scales, blocks, scales)
    packed = pack(weight)
    return packed, packed.data.numel()


def copied(weight: Weight) -> Weight:
    if isinstance(weight, PackedWeight):
        return replace(weight, data=weight.data.clone())
    return weight[0].clone(), weight[1]


def product_speed(
    kernels: Kernels, kind: str, shape: tuple[int, int], rows: int, runs: int
) -> Speed:
    out, in_ = shape
    weight, size = random_weight(kind, out, in_)
    count = max(2, COLD_BYTES // size // max(1, rows // 16))
    weights = [copied(weight) for _ in range(count)]
    result = torch.empty(count, rows, out)
    seconds = best(runs, kernels.product(weights, torch.randn(rows, in_), result))
    madds = count * out * in_ * rows
    return Speed(kind, out, in_, rows, count * size / seconds, madds / seconds)


def product_speeds(kernels: Kernels, folder: Path, runs: int) -> Iterator[Speed]:
    config = read_json(folder / "config.json")
    hidden, inner = config["hidden_size"], config["intermediate_size"]
    for out, in_ in ((hidden, hidden), (inner, hidden), (hidden, inner)):
        for kind, rows in product(("int8", "Q4_K", "Q6_K"), (1, 16, 512)):
            yield product_speed(kernels, kind, (out, in_), rows, runs)


def pass_times(folder: Path, kernels: Kernels, runs: int) -> dict[str, float]:
    """Seconds of a decode step of several texts, and of the prefill of a prompt."""
    config = modern_config(read_json(folder / "config.json"))
    model = CompiledForward(config, open_tensors(folder, []), kernels)
    ids = torch.randint(config["vocab_size"], (PROMPT,)).tolist()
    times = {}
    for texts in (1, 4, 8, 16):
        caches = [model.new_cache() for _ in range(texts)]
        model.run([SequenceInput(cache, ids[:20]) for cache in caches])
        step = partial(model.run, [SequenceInput(cache, ids[:1]) for cache in caches])
        times[f"{texts} texts, a token each"] = best(4 * runs, step)
    times[f"a prompt of {PROMPT}"] = best(
        max(3, runs // 2), lambda: model.run([SequenceInput(model.new_cache(), ids)])
    )
    return times


def measure(models: list[Path], runs: int) -> dict[str, Any]:
    """Everything, printed as it is measured."""
    with tempfile.TemporaryDirectory() as folder, torch.inference_mode():
        kernels = load_kernels(Path(folder))
        memory = read_speed(kernels, 3 * runs)
        print(f"memory: {memory / 1e9:.1f} GB/s")
        heads = f"{'kind':5} {'out':>6} {'in':>6} {'rows':>5} {'GB/s':>7}"
        print(f"{heads} {'of memory':>10} {'GOP/s':>8}")
        products, steps = [], {}
        for model in models:
            for speed in product_speeds(kernels, model, runs):
                products.append(speed.record())
                print(speed.line(memory))
        for model in models:
            steps[model.name] = times = pass_times(model, kernels, runs)
            lines = (f"{1000 * seconds:9.2f} ms  {name}" for name, seconds in times.items())
            print(f"\n{model.name}", *lines, sep="\n")
    return {"memory_gb_s": round(memory / 1e9, 1), "products": products, "steps": steps}


def save(result: dict[str, Any]) -> None:
    machine = {
        "cores": os.cpu_count(),
        "date": datetime.date.today().isoformat(),
        "load": round(os.getloadavg()[0], 1),
    }
    command = "python benchmarks/compiled_kernels.py smol 1b --save"
    record = {"command": command, "machine": machine} | result
    (HERE / "results" / "kernels.json").write_text(json.dumps(record, indent=2) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="+", type=Path)
    parser.add_argument("--runs", type=int, default=10)
    parser.add_argument("--save", action="store_true")
    arguments = parser.parse_args()
    result = measure(arguments.models, arguments.runs)
    if arguments.save:
        save(result)


if __name__ == "__main__":
    main()
