"""The memory of a model from its config and shapes: known models by value."""

from pathlib import Path
from typing import Any

import pytest

from llmchat import memory

LLAMA_7B = {"model_type": "llama", "num_hidden_layers": 32, "num_attention_heads": 32, "hidden_size": 4096, "max_position_embeddings": 2048}

KV = [
    (LLAMA_7B, 2048, 2**30),
    (LLAMA_7B | {"num_key_value_heads": 8}, 2048, 2**28),
    (LLAMA_7B | {"num_key_value_heads": 8, "head_dim": 64}, 2048, 2**27),
    (LLAMA_7B | {"num_key_value_heads": 8, "sliding_window": 1024}, 8192, 2**30),
    ({"n_layer": 24, "n_head": 16, "n_embd": 2048, "multi_query": True}, 1000, 2 * 24 * 128 * 2 * 1000),
    ({"n_layers": 32, "n_heads": 32, "d_model": 4096, "attn_config": {"kv_n_heads": 8}}, 2048, 2**28),
    # Flan-T5 XL: 24 decoder layers of 32 heads of 64, each with its own keys and the encoder's.
    (
        {"model_type": "t5", "is_encoder_decoder": True, "num_layers": 24, "num_decoder_layers": 24, "num_heads": 32, "d_kv": 64, "d_model": 2048},
        512,
        2 * 2 * 24 * 32 * 64 * 2 * 512,
    ),
    ({"model_type": "rwkv", "num_hidden_layers": 32, "hidden_size": 4096}, 100_000, 4 * 5 * 32 * 4096),
    ({"text_config": LLAMA_7B}, 2048, 2**30),
    ({}, 2048, 0),
]  # fmt: skip


@pytest.mark.parametrize(("config", "tokens", "wanted"), KV)
def test_keys_and_values_take_what_the_formula_says(config: dict[str, Any], tokens: int, wanted: int) -> None:
    assert memory.kv_bytes(config, tokens) == wanted


def test_the_longest_context_that_fits_fits_and_the_next_one_does_not() -> None:
    tokens = memory.longest_context(LLAMA_7B, 10**9)
    assert tokens % 256 == 0 and memory.kv_bytes(LLAMA_7B, tokens) <= 10**9 < memory.kv_bytes(LLAMA_7B, tokens + 256)
    assert memory.longest_context(LLAMA_7B, -5) == memory.longest_context({}, 10**9) == 0


def test_quantised_kinds_leave_embeddings_and_the_head_alone() -> None:
    shapes = {"model.embed_tokens.weight": (100, 10), "a.weight": (10, 10), "norm.weight": (10,), "lm_head.weight": (100, 10)}
    assert memory.weights(shapes, "bf16") == 2 * memory.parameters(shapes) == 4220
    assert memory.weights(shapes, "int8") == 4220 - 100 and memory.weights(shapes, "fp32") == 8440
    assert memory.needed(shapes, "int4") == 4220 - 200 + 56 + memory.OVERHEAD


def test_a_group_with_less_memory_than_the_machine(tmp_path: Path) -> None:
    group, membership = tmp_path / "user.slice" / "chat", tmp_path / "membership"
    membership.write_text("0::/user.slice/chat\n")
    group.mkdir(parents=True)
    assert memory.group_rooms(tmp_path, membership) == memory.group_rooms(tmp_path, tmp_path / "nothing") == []
    for folder, most in ((group, "max"), (group.parent, "1000")):
        (folder / "memory.max").write_text(most)
        (folder / "memory.current").write_text("600\n")
        (folder / "memory.stat").write_text("anon 300\ninactive_file 250\n")
    assert memory.group_rooms(tmp_path, membership) == [650], "the limit of the group above; files that can be dropped are free"
    assert memory.available_ram() > 0


def test_the_context_a_model_was_made_for() -> None:
    assert memory.own_context(LLAMA_7B) == 2048 and memory.own_context({"n_positions": 1024}) == 1024 and memory.own_context({}) == 0
