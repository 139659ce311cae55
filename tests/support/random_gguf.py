"""Tiny GGUF files: a random Llama with a vocabulary of bytes, as a whole or in parts."""

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import gguf
import numpy as np

from support.checkpoints import CHATML, SPECIALS

_Q8_0 = gguf.GGMLQuantizationType.Q8_0
HIDDEN, INNER, LAYERS, HEADS, KV_HEADS, CONTEXT = 64, 96, 2, 4, 2, 256


def write_tiny(
    path: Path,
    architecture: str = "llama",
    *,
    parts: int = 1,
    template: str = CHATML,
    vocabulary: bool = True,
    layers: int = LAYERS,
    seed: int = 0,
    texts: Mapping[str, str] = MappingProxyType({}),
) -> Path:
    """Write a model of Q8_0; returns its file, or the first of its parts.

    texts: more facts of the header.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    tensors = _tensors(seed, layers)
    split = -(-len(tensors) // parts) if parts > 1 else 0
    writer = gguf.GGUFWriter(path, architecture, split_max_tensors=split)
    _describe(writer, layers)
    for name, text in texts.items():
        writer.add_string(name, text)
    if vocabulary:
        _name_tokens(writer, template)
    for name, array in tensors.items():
        if array.ndim == 1:
            writer.add_tensor(name, array)
        else:
            writer.add_tensor(name, gguf.quants.quantize(array, _Q8_0), raw_dtype=_Q8_0)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path if parts == 1 else path.with_name(f"{path.stem}-00001-of-{parts:05}.gguf")


def tiny_bytes(folder: Path, **options: Any) -> bytes:
    """The bytes of such a file."""
    return write_tiny(folder / "tiny.gguf", **options).read_bytes()


def _describe(writer: gguf.GGUFWriter, layers: int) -> None:
    writer.add_file_type(7)
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(HIDDEN)
    writer.add_block_count(layers)
    writer.add_feed_forward_length(INNER)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_rope_freq_base(10000.0)
    writer.add_rope_dimension_count(HIDDEN // HEADS)


def _name_tokens(writer: gguf.GGUFWriter, template: str) -> None:
    from llmchat.engines.tokenizer.byte_level import byte_of

    tokens = [*SPECIALS, *byte_of(), "ab"]
    tokens += [f"<unused{number}>" for number in range(320 - len(tokens))]
    writer.add_vocab_size(len(tokens))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    writer.add_token_types([3 if token in SPECIALS else 1 for token in tokens])
    writer.add_token_merges(["a b"])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    if template:
        writer.add_chat_template(template)


def _tensors(seed: int, layers: int) -> dict[str, Any]:
    random = np.random.default_rng(seed)

    def matrix(rows: int, columns: int) -> Any:
        return random.normal(0, 0.3 / columns**0.25, (rows, columns)).astype(np.float32)

    ones, kv = np.ones(HIDDEN, np.float32), HIDDEN // HEADS * KV_HEADS
    found = {
        "token_embd.weight": matrix(320, HIDDEN),
        "output_norm.weight": ones,
        "output.weight": matrix(320, HIDDEN),
    }
    for layer in range(layers):
        shapes = {
            "attn_q": (HIDDEN, HIDDEN), "attn_k": (kv, HIDDEN), "attn_v": (kv, HIDDEN),
            "attn_output": (HIDDEN, HIDDEN), "ffn_gate": (INNER, HIDDEN),
            "ffn_up": (INNER, HIDDEN), "ffn_down": (HIDDEN, INNER),
        }  # fmt: skip
        found |= {f"blk.{layer}.{name}.weight": matrix(*size) for name, size in shapes.items()}
        found |= {f"blk.{layer}.{name}.weight": ones for name in ("attn_norm", "ffn_norm")}
    return found
