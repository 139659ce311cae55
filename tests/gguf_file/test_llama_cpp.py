"""What llama.cpp would do with a file: rules that no tiny model shows."""

from typing import Any

import pytest

from llmchat.gguf_file.architectures import ARCHITECTURES
from llmchat.gguf_file.llama_cpp import _BIASES, _SQUARE, _UNTIED, deviation, refusal

NORMS = {"blk.0.attn_q_norm.weight": (16,)}
Sizes = dict[str, Any]


@pytest.mark.parametrize(
    ("arch", "own", "shapes", "why"),
    [
        ("command-r", {"block_count": 64}, {}, "have norms of heads from 64 layers on"),
        ("command-r", {"block_count": 64}, NORMS, ""),
        ("deepseek2", {"block_count": 27}, {"blk.0.attn_q.weight": (8, 8)}, ""),
        ("deepseek2", {"block_count": 27}, {}, "26 or 27 layers"),
        ("deepseek2", {"block_count": 48, "vocab_size": 128256}, {}, "26 or 27 layers"),
        ("deepseek2", {"block_count": 61, "vocab_size": 129280}, {}, ""),
        (
            "granitehybrid",
            {"embedding_length": 64, "ssm.inner_size": 64},
            {},
            "must have a Mamba layer 128 numbers wide, not 64",
        ),
        ("granitehybrid", {"embedding_length": 64, "ssm.inner_size": 128}, {}, ""),
        (
            "gemma3n",
            {"altup.num_inputs": 4, "embedding_length_per_layer_input": 8},
            {},
            "must have `embedding_length_per_layer_input` = 256, not 8",
        ),
        (
            "gemma3n",
            {"altup.num_inputs": 4, "embedding_length_per_layer_input": 256},
            {"blk.0.laurel_l.weight": (8, 64)},
            "must have a LAuReL rank of 64, not 8",
        ),
    ],
)
def test_a_file_is_refused(arch: str, own: Sizes, shapes: Sizes, why: str) -> None:
    found = refusal(arch, {f"{arch}.{name}": value for name, value in own.items()}, shapes)
    assert why in found and bool(found) == bool(why)


@pytest.mark.parametrize(
    ("arch", "own", "why"),
    [
        ("exaone4", {"block_count": 64, "attention.sliding_window": 4096}, ""),
        ("exaone4", {"block_count": 30}, ""),
        ("gemma3n", {"block_count": 35, "attention.shared_kv_layers": 15}, ""),
        ("gemma3n", {"block_count": 30}, "behind 20 layers, not behind 30"),
        ("phi3", {"attention.sliding_window": 0}, ""),
        ("llama", {}, ""),
    ],
)
def test_a_file_is_computed_differently(arch: str, own: Sizes, why: str) -> None:
    found = deviation(arch, {f"{arch}.{name}": value for name, value in own.items()}, {})
    assert why in found and bool(found) == bool(why)


def test_rules_name_architectures_that_are_written() -> None:
    written = {name for name, known in ARCHITECTURES.items() if known.is_written}
    assert {*_BIASES, *_SQUARE, *_UNTIED} <= written
