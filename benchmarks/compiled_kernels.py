#!/usr/bin/env python3
"""The compiled kernels by themselves: products and whole steps, against what memory and processor of this machine can give.

usage: python benchmarks/compiled_kernels.py MODEL_FOLDER [MODEL_FOLDER ...] [--runs N] [--save]

Each MODEL_FOLDER is a checkpoint of the Llama family. The best of N runs counts: what the kernels can do, not what other programs on the machine
left of it. Weights are taken from more matrices than the caches hold. --save writes benchmarks/results/kernels.json.
"""

import argparse
import datetime
import json
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from llmchat.engines.checkpoint_files import read_json
from llmchat.engines.transformers.checkpoint_names import modern_config
from llmchat.engines.transformers.compiled import CompiledForward
from llmchat.engines.transformers.compiled.build import load_kernels
from llmchat.engines.transformers.compiled.kernels import Kernels
from llmchat.engines.transformers.executor import SequenceInput
from llmchat.engines.transformers.pytorch.int8 import quantise_rows
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
    """Bytes a second that all threads read from memory."""
    room = torch.ones(COLD_BYTES // 2**20 * 2**18, dtype=torch.int32)
    return 4 * room.numel() / best(runs, lambda: kernels.read_memory(room))


def product_speed(
    kernels: Kernels, out: int, in_: int, rows: int, runs: int
) -> tuple[float, float]:
    """Bytes of weights, and multiply-adds, a second."""
    count = max(2, COLD_BYTES // (out * in_) // max(1, rows // 16))
    pair = quantise_rows(torch.randn(out, in_))
    pairs = [(pair[0].clone(), pair[1]) for _ in range(count)]
    seconds = best(
        runs, kernels.product(pairs, torch.randn(rows, in_), torch.empty(count, rows, out))
    )
    return count * out * in_ / seconds, count * out * in_ * rows / seconds


def steps(folder: Path, kernels: Kernels, runs: int) -> dict[str, float]:
    """Seconds of one step with so many texts of a token each, and of a prompt."""
    config = modern_config(read_json(folder / "config.json"))
    model = CompiledForward(config, open_tensors(folder, []), kernels)
    ids = torch.randint(config["vocab_size"], (PROMPT,)).tolist()
    found = {}
    for texts in (1, 4, 8, 16):
        caches = [model.new_cache() for _ in range(texts)]
        model.run([SequenceInput(cache, ids[:20]) for cache in caches])
        found[f"{texts} texts, a token each"] = best(
            4 * runs,
            lambda caches=caches: model.run([SequenceInput(cache, ids[:1]) for cache in caches]),
        )
    found[f"a prompt of {PROMPT}"] = best(
        max(3, runs // 2), lambda: model.run([SequenceInput(model.new_cache(), ids)])
    )
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="+", type=Path)
    parser.add_argument("--runs", type=int, default=10)
    parser.add_argument("--save", action="store_true")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as room, torch.inference_mode():
        kernels = load_kernels(Path(room))
        speed = read_speed(kernels, 3 * arguments.runs)
        result: dict[str, Any] = {"memory_gb_s": round(speed / 1e9, 1), "products": [], "steps": {}}
        print(
            f"memory is read at {speed / 1e9:.1f} GB/s\n{'out':>6} {'in':>6} {'rows':>5} {'GB/s':>7} {'of memory':>10} {'GOP/s':>8}"
        )
        for folder in arguments.models:
            config = read_json(folder / "config.json")
            hidden, inner = config["hidden_size"], config["intermediate_size"]
            for out, in_ in ((hidden, hidden), (inner, hidden), (hidden, inner)):
                for rows in (1, 16, 512):
                    read, operations = product_speed(kernels, out, in_, rows, arguments.runs)
                    result["products"].append(
                        {
                            "out": out,
                            "in": in_,
                            "rows": rows,
                            "gb_s": round(read / 1e9, 1),
                            "gop_s": round(2 * operations / 1e9),
                        }
                    )
                    print(
                        f"{out:6} {in_:6} {rows:5} {read / 1e9:7.1f} {100 * read / speed:9.0f}% {2 * operations / 1e9:8.0f}"
                    )
        for folder in arguments.models:
            result["steps"][folder.name] = found = steps(folder, kernels, arguments.runs)
            print(
                f"\n{folder.name}",
                *(f"{1000 * seconds:9.2f} ms  {name}" for name, seconds in found.items()),
                sep="\n",
            )
    if arguments.save:
        machine = {
            "cores": os.cpu_count(),
            "date": datetime.date.today().isoformat(),
            "load": round(os.getloadavg()[0], 1),
        }
        text = (
            json.dumps(
                {
                    "command": "python benchmarks/compiled_kernels.py smol 1b --save",
                    "machine": machine,
                }
                | result,
                indent=2,
            )
            + "\n"
        )
        (HERE / "results" / "kernels.json").write_text(text)


if __name__ == "__main__":
    main()
