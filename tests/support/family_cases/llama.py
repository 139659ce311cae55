"""Llama, Mistral, and families that differ from them in little."""

from support.family_cases.pieces import (
    DENSE,
    FIVE_EXPERTS,
    FULL,
    HEADS,
    LLAMA3,
    LOCAL_EXPERTS,
    ODD,
    ODD_HEADS,
    SLIDING,
    TIED,
    WINDOWS,
    YARN,
    Case,
    layers,
    rope,
)

LLAMA: dict[str, Case] = {
    "llama": Case("LlamaConfig", DENSE),
    "llama: odd": Case("LlamaConfig", HEADS | ODD_HEADS),
    "llama: heads of 24": Case("LlamaConfig", HEADS | {"head_dim": 24}),
    "llama: tied, one head of keys": Case("LlamaConfig", DENSE | TIED | {"num_key_value_heads": 1}),
    "llama: biases": Case("LlamaConfig", DENSE | {"attention_bias": True, "mlp_bias": True}),
    "llama: llama3 rope": Case("LlamaConfig", DENSE | LLAMA3),
    "llama: linear rope": Case("LlamaConfig", DENSE | rope("linear", factor=4.0)),
    "llama: yarn rope": Case("LlamaConfig", DENSE | YARN),
    "llama: dynamic rope": Case(
        "LlamaConfig",
        DENSE | rope("dynamic", factor=16.0) | {"max_position_embeddings": 20},
    ),
    "llama4": Case(
        "Llama4TextConfig",
        HEADS | LOCAL_EXPERTS | {
            "num_hidden_layers": 4, "num_experts_per_tok": 1, "interleave_moe_layer_step": 2,
            "intermediate_size_mlp": 112, "attention_chunk_size": 16, "no_rope_layer_interval": 2,
            "floor_scale": 16,
        },
    ),
    "llama4: odd, no norms, two experts a token": Case(
        "Llama4TextConfig",
        HEADS | ODD_HEADS | {
            "num_local_experts": 5, "num_experts_per_tok": 2, "intermediate_size_mlp": 101,
            "attention_chunk_size": 13, "no_rope_layer_interval": 3, "use_qk_norm": False,
            "attention_bias": True, "attn_temperature_tuning": False,
        },
    ),
    "smollm3": Case("SmolLM3Config", DENSE | TIED | {"no_rope_layer_interval": 2}),
    "smollm3: odd, window": Case(
        "SmolLM3Config",
        DENSE | ODD | {"no_rope_layers": [1, 0, 1], "use_sliding_window": True,
            "sliding_window": 8, "attention_bias": True, "mlp_bias": True},
    ),
    "seed-oss": Case("SeedOssConfig", HEADS),
    "seed-oss: odd, all biases": Case(
        "SeedOssConfig",
        HEADS | ODD_HEADS | {"attention_out_bias": True, "mlp_bias": True},
    ),
    "ernie4.5": Case("Ernie4_5Config", HEADS | TIED),
    "ernie4.5: odd, biases": Case("Ernie4_5Config", HEADS | ODD_HEADS | {"use_bias": True}),
    "hunyuan": Case("HunYuanDenseV1Config", HEADS | TIED),
    "hunyuan: odd, biases, alpha": Case(
        "HunYuanDenseV1Config",
        HEADS | ODD_HEADS | rope("dynamic", alpha=1000.0, factor=1.0) | {"attention_bias": True},
    ),
    "exaone4": Case("Exaone4Config", DENSE | WINDOWS),
    "exaone4: odd, no window": Case(
        "Exaone4Config", DENSE | ODD | LLAMA3 | {"sliding_window": None} | layers(*[FULL] * 3)
    ),
    "apertus": Case("ApertusConfig", DENSE | LLAMA3),
    "apertus: odd, biases": Case("ApertusConfig", DENSE | ODD | {"attention_bias": True}),
    "arcee": Case("ArceeConfig", DENSE | LLAMA3),
    "arcee: odd, all biases": Case(
        "ArceeConfig", DENSE | ODD | {"attention_bias": True, "mlp_bias": True}
    ),
    "granite": Case(
        "GraniteConfig",
        DENSE | TIED | {"embedding_multiplier": 12.0, "logits_scaling": 8.0,
            "residual_multiplier": 0.22, "attention_multiplier": 0.11},
    ),
    "granite: odd, biases": Case(
        "GraniteConfig",
        DENSE | ODD | {"embedding_multiplier": 3.0, "logits_scaling": 0.5, "mlp_bias": True,
            "residual_multiplier": 0.7, "attention_multiplier": 0.3, "attention_bias": True},
    ),
    "olmo2": Case("Olmo2Config", DENSE),
    "olmo2: odd": Case("Olmo2Config", DENSE | ODD | {"attention_bias": True}),
    "olmo3": Case(
        "Olmo3Config",
        DENSE | WINDOWS | {"rope_parameters": {
            SLIDING: {"rope_type": "default", "rope_theta": 10000.0},
            FULL: YARN["rope_parameters"] | {"attention_factor": 1.1},
        }},
    ),
    "olmo3: odd": Case("Olmo3Config", DENSE | ODD | WINDOWS | {"sliding_window": 7}),
}  # fmt: skip

MISTRAL: dict[str, Case] = {
    "mistral": Case("MistralConfig", DENSE | {"sliding_window": None}),
    "mistral: window": Case("MistralConfig", DENSE | {"sliding_window": 8}),
    "mistral: odd window": Case("MistralConfig", HEADS | ODD_HEADS | {"sliding_window": 37}),
    "mistral: window of 270": Case("MistralConfig", DENSE | {"sliding_window": 270}),
    "ministral: some layers slide": Case("MinistralConfig", HEADS | WINDOWS),
    "ministral3": Case(
        "Ministral3Config",
        HEADS | {"rope_parameters": YARN["rope_parameters"] | {
            "mscale": 1.0, "mscale_all_dim": 1.0, "llama_4_scaling_beta": 0.1}},
    ),
    "ministral3: odd, window": Case(
        "Ministral3Config",
        HEADS | ODD_HEADS | {"sliding_window": 8, "rope_parameters": YARN["rope_parameters"] | {
            "mscale": 0.8, "mscale_all_dim": 0.5, "llama_4_scaling_beta": 0.3}},
    ),
    "mixtral": Case("MixtralConfig", DENSE | LOCAL_EXPERTS),
    "mixtral: odd": Case(
        "MixtralConfig",
        HEADS | ODD_HEADS | FIVE_EXPERTS,
    ),
    "mixtral: window": Case("MixtralConfig", DENSE | LOCAL_EXPERTS | {"sliding_window": 8}),
}  # fmt: skip
