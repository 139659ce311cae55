"""The memory of a model from its config and shapes: known models by value."""

from pathlib import Path
from typing import Any

import pytest

from llmchat import memory_estimate

LLAMA_7B = {
    "model_type": "llama",
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "hidden_size": 4096,
    "max_position_embeddings": 2048,
}

KV = [
    (LLAMA_7B, 2048, 2**30),
    (LLAMA_7B | {"num_key_value_heads": 8}, 2048, 2**28),
    (LLAMA_7B | {"num_key_value_heads": 8, "head_dim": 64}, 2048, 2**27),
    (LLAMA_7B | {"num_key_value_heads": 8, "sliding_window": 1024}, 8192, 2**30),
    (
        {"n_layer": 24, "n_head": 16, "n_embd": 2048, "multi_query": True},
        1000,
        2 * 24 * 128 * 2 * 1000,
    ),
    (
        {"n_layers": 32, "n_heads": 32, "d_model": 4096, "attn_config": {"kv_n_heads": 8}},
        2048,
        2**28,
    ),
    # Flan-T5 XL: 24 decoder layers of 32 heads of 64, each with its own keys and the encoder's.
    (
        {
            "model_type": "t5", "is_encoder_decoder": True, "num_layers": 24,
            "num_decoder_layers": 24, "num_heads": 32, "d_kv": 64, "d_model": 2048,
        },
        512,
        2 * 2 * 24 * 32 * 64 * 2 * 512,
    ),
    (
        {"model_type": "rwkv", "num_hidden_layers": 32, "hidden_size": 4096},
        100_000,
        4 * 5 * 32 * 4096,
    ),
    ({"text_config": LLAMA_7B}, 2048, 2**30),
    # A hybrid: every fourth layer attends; and one that says so layer by layer.
    (LLAMA_7B | {"full_attention_interval": 4}, 2048, 2**28),
    (LLAMA_7B | {"layer_types": ["linear_attention", "conv", "full_attention"]}, 2048, 2**25),
    (LLAMA_7B | {"num_kv_shared_layers": 16}, 2048, 2**29),
    # DeepSeek V2 Lite: keys of 128 + 64 numbers, values of 128.
    (
        {
            "num_hidden_layers": 27, "num_attention_heads": 16, "hidden_size": 2048,
            "qk_nope_head_dim": 128, "qk_rope_head_dim": 64, "v_head_dim": 128,
        },
        1000,
        2 * 27 * 16 * 320 * 1000,
    ),
    ({}, 2048, 0),
]  # fmt: skip


@pytest.mark.parametrize(("config", "tokens", "wanted"), KV)
def test_keys_and_values_take_what_the_formula_says(
    config: dict[str, Any], tokens: int, wanted: int
) -> None:
    assert memory_estimate.kv_bytes(config, tokens) == wanted


def test_8_bits_take_half_of_16_and_a_scale_for_32_numbers() -> None:
    assert [memory_estimate.row_bytes(width, "int8") for width in (64, 80, 128)] == [68, 86, 136]
    half = memory_estimate.kv_bytes(LLAMA_7B, 2048, "int8")
    assert half / memory_estimate.kv_bytes(LLAMA_7B, 2048) == 34 / 64
    longest = memory_estimate.longest_context(LLAMA_7B, 10**9, "int8")
    assert longest == int(memory_estimate.longest_context(LLAMA_7B, 64 * 10**9 // 34) // 256 * 256)


def test_the_longest_context_that_fits_fits_and_the_next_one_does_not() -> None:
    tokens = memory_estimate.longest_context(LLAMA_7B, 10**9)
    assert tokens % 256 == 0 and memory_estimate.kv_bytes(
        LLAMA_7B, tokens
    ) <= 10**9 < memory_estimate.kv_bytes(LLAMA_7B, tokens + 256)
    assert (
        memory_estimate.longest_context(LLAMA_7B, -5)
        == memory_estimate.longest_context({}, 10**9)
        == 0
    )


def test_quantised_kinds_leave_embeddings_and_the_head_alone() -> None:
    shapes = {
        "model.embed_tokens.weight": (100, 10),
        "a.weight": (10, 10),
        "norm.weight": (10,),
        "lm_head.weight": (100, 10),
    }
    assert memory_estimate.weights(shapes, "bf16") == 2 * memory_estimate.parameters(shapes) == 4220
    assert (
        memory_estimate.weights(shapes, "int8") == 4220 - 100
        and memory_estimate.weights(shapes, "fp32") == 8440
    )
    assert (
        memory_estimate.needed(shapes, "int4")
        == int(2000 * 0.83) + 65 + 20 + memory_estimate.OVERHEAD
    )


def test_experts_of_a_planned_family_are_quantised() -> None:
    shapes = {"layer.experts.0.up_proj.weight": (10, 10), "layer.experts.down_proj": (4, 10, 10)}
    assert memory_estimate.weights(shapes, "int8", {"model_type": "qwen3_moe"}) == 500
    nested = {"text_config": {"model_type": "qwen3_5_moe_text"}}
    assert memory_estimate.weights(shapes, "int8", nested) == 500
    assert memory_estimate.weights(shapes, "int8", {"model_type": "other"}) == 1000


def test_a_group_with_less_memory_than_the_machine(tmp_path: Path) -> None:
    group, membership = tmp_path / "user.slice" / "chat", tmp_path / "membership"
    membership.write_text("0::/user.slice/chat\n")
    group.mkdir(parents=True)
    assert (
        memory_estimate.group_rooms(tmp_path, membership)
        == memory_estimate.group_rooms(tmp_path, tmp_path / "nothing")
        == []
    )
    for folder, most in ((group, "max"), (group.parent, "1000")):
        (folder / "memory.max").write_text(most)
        (folder / "memory.current").write_text("600\n")
        (folder / "memory.stat").write_text("anon 300\ninactive_file 250\n")
    assert memory_estimate.group_limits(tmp_path, membership) == [1000]
    assert memory_estimate.group_rooms(tmp_path, membership) == [650], (
        "the limit of the group above; files that can be dropped are free"
    )
    assert memory_estimate.available_ram() > 0


def test_the_context_a_model_was_made_for() -> None:
    assert (
        memory_estimate.own_context(LLAMA_7B) == 2048
        and memory_estimate.own_context({"n_positions": 1024}) == 1024
        and memory_estimate.own_context({}) == 0
    )


def rope(kind: str, factor: float, most: int, **more: Any) -> dict[str, Any]:
    inner = {key: more.pop(key) for key in ("original_max_position_embeddings",) if key in more}
    return {
        "max_position_embeddings": most,
        "rope_scaling": {"rope_type": kind, "factor": factor} | inner,
    } | more


WINDOWS = [
    # Qwen2.5 extended as on its card; Qwen3; DeepSeek V3, whose number includes the factor; one
    # without the original number.
    (rope("yarn", 4.0, 32768, original_max_position_embeddings=32768), 131072),
    (rope("yarn", 4.0, 40960, original_max_position_embeddings=32768), 131072),
    (rope("yarn", 40, 163840, original_max_position_embeddings=4096), 163840),
    (rope("yarn", 2.0, 4096), 8192),
    (rope("dynamic", 2.0, 4096), 8192),
    # Vicuna 16k and LongChat 32k; LLaMA-2-7B-32K, Gemma 3, DeepSeek-Coder.
    (rope("linear", 4.0, 4096, max_sequence_length=16384), 16384),
    (rope("linear", 8.0, 4096), 32768),
    (rope("linear", 8.0, 32768), 32768),
    (rope("linear", 8.0, 131072), 131072),
    (rope("linear", 4.0, 16384), 16384),
    # Numbers that include the scaling, by definition of Llama 3.1's and Phi-3's.
    (rope("llama3", 8.0, 131072, original_max_position_embeddings=8192), 131072),
    (rope("longrope", 32.0, 131072, original_max_position_embeddings=4096), 131072),
    ({"rope_scaling": {"type": "dynamic", "factor": 2.0}, "max_position_embeddings": 2048}, 4096),
    ({"text_config": rope("yarn", 2.0, 4096) | {"num_hidden_layers": 2}}, 8192),
    (rope("linear", 1e9, 4096), 4096),
    (rope("yarn", "4", 4096), 4096),  # type: ignore[arg-type]
]


@pytest.mark.parametrize(("config", "wanted"), WINDOWS)
def test_the_window_includes_what_rotary_scaling_adds(config: dict[str, Any], wanted: int) -> None:
    assert memory_estimate.own_context(config) == wanted


MOE = {
    "model.embed_tokens.weight": (100, 10),
    "model.layers.0.self_attn.q_proj.weight": (10, 10),
    "model.layers.0.mlp.shared_expert.up_proj.weight": (10, 10),
    "model.layers.0.mlp.experts.0.up_proj.weight": (40, 10),
    "model.layers.0.mlp.experts.1.up_proj.weight": (40, 10),
}


def test_experts_are_counted_with_the_bits_they_keep() -> None:
    linears, experts, embedding = 200, 800, 1000
    loaded = 2 * (linears + experts + embedding)
    assert (
        memory_estimate.weights(MOE, "bf16") == loaded
        and memory_estimate.weights(MOE, "fp32") == 2 * loaded
    )
    assert memory_estimate.weights(MOE, "int8") == loaded + linears, (
        "all of it is loaded, and its linears are quantised beside it"
    )
    fused = {name: shape for name, shape in MOE.items() if ".experts." not in name} | {
        "model.layers.0.mlp.experts.up_proj": (2, 40, 10)
    }
    assert memory_estimate.weights(fused, "int8") == linears + 2 * (experts + embedding)


def test_experts_of_families_with_a_plan_are_quantised() -> None:
    linears, experts, embedding = 200, 800, 1000
    stacked = {name: shape for name, shape in MOE.items() if ".experts." not in name} | {
        "model.layers.0.mlp.experts.up_proj": (2, 40, 10)
    }
    for shapes in (MOE, stacked):
        assert (
            memory_estimate.weights(shapes, "int8", {"model_type": "qwen3_moe"})
            == linears + experts + 2 * embedding
        )
    config = {"model_type": "qwen3_moe", "num_experts": 8}
    assert memory_estimate.weights_of_count(1000, "int8", config) == 1000


def test_experts_of_a_model_whose_tensors_are_not_known_count_as_16_bit() -> None:
    assert memory_estimate.weights_of_count(1000, "int8") == 1000
    assert (
        memory_estimate.weights_of_count(1000, "int8", {"num_local_experts": 8})
        == memory_estimate.weights_of_count(1000, "bf16", {})
        == 2000
    )
    assert (
        memory_estimate.weights_of_count(1000, "int4", {"text_config": {"n_routed_experts": 64}})
        == 2000
    )
