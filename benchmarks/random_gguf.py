#!/usr/bin/env python3
"""A GGUF file of random weights in the shape of Qwen2.5-7B, as large as its Q4_K_M.

    python benchmarks/random_gguf.py LIKE.gguf FILE.gguf
    python benchmarks/quantised.py WORK FILE.gguf --no-int8 --peers-python PYTHON --save

LIKE is a Qwen2 file, whose tokenizer and settings it takes. The answers are noise; time and memory
are those of a real model.
"""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gguf
import numpy as np

HIDDEN, LAYERS, HEADS, KV_HEADS, INNER = 3584, 28, 28, 4, 18944
SIZES = {
    "embedding_length": HIDDEN,
    "block_count": LAYERS,
    "attention.head_count": HEADS,
    "attention.head_count_kv": KV_HEADS,
    "feed_forward_length": INNER,
}
Q4_K, Q6_K, F32 = (
    gguf.GGMLQuantizationType.Q4_K,
    gguf.GGMLQuantizationType.Q6_K,
    gguf.GGMLQuantizationType.F32,
)
# Where the scale of a block is, in halves of 16 bits; for Q4_K that of its minima follows.
SCALES = {Q4_K: (0, 1), Q6_K: (104,)}


def shapes(vocabulary: int) -> Iterator[tuple[str, gguf.GGMLQuantizationType, tuple[int, ...]]]:
    """Name, type and shape, rows first. Q4_K_M has six bits for half of the values and of the
    outputs of MLPs, and for the output head.
    """
    kv = HIDDEN // HEADS * KV_HEADS
    yield "token_embd.weight", Q4_K, (vocabulary, HIDDEN)
    yield "output_norm.weight", F32, (HIDDEN,)
    yield "output.weight", Q6_K, (vocabulary, HIDDEN)
    for layer in range(LAYERS):
        wide = Q6_K if layer % 2 else Q4_K
        inner = {
            "attn_norm.weight": (F32, (HIDDEN,)),
            "ffn_norm.weight": (F32, (HIDDEN,)),
            "attn_q.weight": (Q4_K, (HIDDEN, HIDDEN)),
            "attn_q.bias": (F32, (HIDDEN,)),
            "attn_k.weight": (Q4_K, (kv, HIDDEN)),
            "attn_k.bias": (F32, (kv,)),
            "attn_v.weight": (wide, (kv, HIDDEN)),
            "attn_v.bias": (F32, (kv,)),
            "attn_output.weight": (Q4_K, (HIDDEN, HIDDEN)),
            "ffn_gate.weight": (Q4_K, (INNER, HIDDEN)),
            "ffn_up.weight": (Q4_K, (INNER, HIDDEN)),
            "ffn_down.weight": (wide, (HIDDEN, INNER)),
        }
        for name, (kind, shape) in inner.items():
            yield f"blk.{layer}.{name}", kind, shape


def values(kind: gguf.GGMLQuantizationType, shape: tuple[int, ...]) -> Any:
    if kind == F32:
        return np.full(shape, 0.02, np.float32)
    rows, columns = shape
    block, size = gguf.GGML_QUANT_SIZES[kind]
    found = np.random.default_rng(0).integers(0, 256, (rows, columns // block, size), np.uint8)
    found.view(np.float16)[:, :, SCALES[kind]] = 1e-4
    return found.reshape(rows, -1)


def copy_facts(reader: gguf.GGUFReader, writer: gguf.GGUFWriter) -> None:
    for name, field in reader.fields.items():
        if name.startswith("GGUF.") or name == "general.architecture":
            continue
        size = SIZES.get(name.removeprefix("qwen2."))
        kind = field.types[0]
        inner = field.types[-1] if kind == gguf.GGUFValueType.ARRAY else None
        writer.add_key_value(name, size or field.contents(), kind, inner)


def main() -> None:
    reader, file = gguf.GGUFReader(sys.argv[1]), Path(sys.argv[2])
    writer = gguf.GGUFWriter(str(file), "qwen2")
    copy_facts(reader, writer)
    vocabulary = next(t for t in reader.tensors if t.name == "token_embd.weight").shape[1]
    made: dict[Any, Any] = {}
    for name, kind, shape in shapes(int(vocabulary)):
        if (kind, shape) not in made:
            made[kind, shape] = values(kind, shape)
        writer.add_tensor(name, made[kind, shape], raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


if __name__ == "__main__":
    main()
