#!/usr/bin/env python3
"""Relative error of matrices in each kind of a GGUF file, written by llmchat and by llama.cpp.

    python benchmarks/kind_errors.py FILE.gguf --ggml libggml-base.so --save

FILE is a GGUF file of a Llama-like model. The first ROWS rows of five matrices of its middle layer
are dequantised and their inputs shuffled, since a grid like that of the file would fit them exactly
otherwise. Both programs then write the same float32 numbers: llmchat as `convert` does, llama.cpp
by ggml_quantize_chunk of the library --ggml. gguf-py reads both. An error is the square root of the
squared differences over the squared numbers, over all five matrices. In the weighted columns, both
programs get the same random importance of the inputs, log-normal, and squares are weighted by it.
--save writes benchmarks/results/kind_errors.json.
"""

import argparse
import datetime
import json
import sys
from pathlib import Path
from typing import Any

import numpy
import torch
from four_bits import dequantised, ggml_quantiser
from torch import Tensor

from llmchat.engines.transformers.quantised.gguf_kinds import FITTED, encoded
from llmchat.gguf_file.types import type_named

RESULTS = Path(__file__).parent / "results" / "kind_errors.json"
MATRICES = ("attn_q", "attn_output", "ffn_gate", "ffn_up", "ffn_down")
ROWS = 192
# llama.cpp's MXFP4 takes no importance, and llmchat's takes it.
WITHOUT_IMPORTANCE = ("MXFP4",)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("file", type=Path)
    parser.add_argument("--ggml", required=True, help="llama.cpp's libggml-base.so")
    parser.add_argument("--save", action="store_true")
    options = parser.parse_args()
    quantise = ggml_quantiser(options.ggml)
    weights = matrices(options.file)
    rows = {}
    for kind in FITTED:
        rows[kind] = errors(kind, weights, quantise)
        print(kind, rows[kind], flush=True)
    if options.save:
        found = {"date": str(datetime.date.today()), "file": options.file.name, "kinds": rows}
        RESULTS.write_text(json.dumps(found, indent=1) + "\n")


def matrices(file: Path) -> list[tuple[Tensor, Tensor]]:
    """Weights [ROWS, in] with shuffled inputs, and the importance of the inputs [in]."""
    import gguf

    tensors = {one.name: one for one in gguf.GGUFReader(file).tensors}
    layer = sum(name.endswith(".attn_q.weight") for name in tensors) // 2
    generator = torch.Generator().manual_seed(1)
    found = []
    for name in MATRICES:
        tensor = tensors[f"blk.{layer}.{name}.weight"]
        weight = dequantised(tensor.data[:ROWS], tensor.tensor_type.name)
        inputs = torch.randperm(weight.shape[1], generator=generator)
        importance = torch.randn(weight.shape[1], generator=generator).exp()
        found.append((weight[:, inputs].contiguous(), importance))
    return found


def errors(kind: str, weights: list[tuple[Tensor, Tensor]], quantise: Any) -> dict[str, float]:
    """The error of each program, without and with the importance of inputs."""
    found = {
        "llmchat": _error(weights, kind, lambda weight, _: _ours(weight, kind, None)),
        "llama.cpp": _error(weights, kind, lambda weight, _: quantise(weight, kind, None)),
    }
    if kind not in WITHOUT_IMPORTANCE:
        found |= {
            "weighted, llmchat": _error(
                weights, kind, lambda weight, by: _ours(weight, kind, by), weighted=True
            ),
            "weighted, llama.cpp": _error(
                weights, kind, lambda weight, by: quantise(weight, kind, by), weighted=True
            ),
        }
    return found


def _ours(weight: Tensor, kind: str, importance: Tensor | None) -> Any:
    parts = encoded(weight, type_named(kind), "weight", importance)
    return numpy.frombuffer(b"".join(parts), "u1").reshape(len(weight), -1)


def _error(
    weights: list[tuple[Tensor, Tensor]], kind: str, written: Any, *, weighted: bool = False
) -> float:
    wrong, all_ = 0.0, 0.0
    for weight, importance in weights:
        by = importance if weighted else torch.ones(weight.shape[1])
        left = dequantised(written(weight, importance), kind)
        wrong += float(((left - weight).square() * by).sum())
        all_ += float((weight.square() * by).sum())
    return (wrong / all_) ** 0.5


if __name__ == "__main__":
    sys.exit(main())
