"""Qwen and Gemma, with their hybrids and experts."""

from support.family_cases.pieces import (
    DENSE,
    EXPERTS,
    FULL,
    HEADS,
    LINEAR,
    ODD,
    ODD_EXPERTS,
    ODD_HEADS,
    SHARED,
    SLIDING,
    TIED,
    WINDOWS,
    YARN,
    Case,
    Sizes,
    layers,
)

DELTA: Sizes = layers(LINEAR, LINEAR, FULL) | {
    "linear_num_value_heads": 4, "linear_num_key_heads": 2, "linear_key_head_dim": 16,
    "linear_value_head_dim": 16, "partial_rotary_factor": 0.5,
}  # fmt: skip
ODD_DELTA: Sizes = DELTA | {
    "linear_num_value_heads": 3, "linear_num_key_heads": 3, "linear_value_head_dim": 32,
    "linear_conv_kernel_dim": 3, "num_hidden_layers": 4,
    "layer_types": [LINEAR, FULL, LINEAR, FULL],
}  # fmt: skip
QWEN: dict[str, Case] = {
    "qwen2": Case("Qwen2Config", DENSE),
    "qwen2: odd, tied": Case("Qwen2Config", DENSE | ODD | TIED),
    "qwen2: window": Case(
        "Qwen2Config",
        DENSE | {"use_sliding_window": True, "sliding_window": 8, "max_window_layers": 1},
    ),
    "qwen3": Case("Qwen3Config", HEADS),
    "qwen3: odd, tied, biases": Case(
        "Qwen3Config", HEADS | ODD_HEADS | TIED | {"attention_bias": True}
    ),
    "qwen3: yarn rope": Case("Qwen3Config", HEADS | YARN),
    "qwen3-moe": Case("Qwen3MoeConfig", HEADS | EXPERTS | {"norm_topk_prob": True}),
    "qwen3-moe: odd, some layers dense": Case(
        "Qwen3MoeConfig", HEADS | ODD_HEADS | ODD_EXPERTS | {"mlp_only_layers": [1]}
    ),
    "qwen3-next": Case("Qwen3NextConfig", HEADS | DELTA | EXPERTS | SHARED),
    "qwen3-next: odd": Case(
        "Qwen3NextConfig",
        HEADS | ODD_HEADS | ODD_DELTA | ODD_EXPERTS | SHARED | {"mlp_only_layers": [1],
            "norm_topk_prob": False},
    ),
    "qwen3.5": Case("Qwen3_5TextConfig", HEADS | DELTA | TIED),
    "qwen3.5: odd": Case("Qwen3_5TextConfig", HEADS | ODD_HEADS | ODD_DELTA),
    "qwen3.5-moe": Case("Qwen3_5MoeTextConfig", HEADS | DELTA | EXPERTS | SHARED),
    "qwen3.5-moe: odd": Case(
        "Qwen3_5MoeTextConfig", HEADS | ODD_HEADS | ODD_DELTA | ODD_EXPERTS | SHARED
    ),
}  # fmt: skip

GEMMA_ROPES: Sizes = {
    "rope_parameters": {
        SLIDING: {"rope_type": "default", "rope_theta": 10000.0},
        FULL: {"rope_type": "linear", "rope_theta": 1000000.0, "factor": 8.0},
    }
}
# Small enough to bend the logits of a tiny model.
SOFT_CAPS: Sizes = {"attn_logit_softcapping": 1.5, "final_logit_softcapping": 3.0}
GEMMA_3N: Sizes = HEADS | TIED | layers(SLIDING, FULL, SLIDING, FULL, SLIDING, FULL) | {
    "sliding_window": 8, "hidden_size_per_layer_input": 16, "vocab_size_per_layer_input": 320,
    "laurel_rank": 16, "num_kv_shared_layers": 2, "altup_num_inputs": 3,
    "activation_sparsity_pattern": [0.9, 0.9, 0.0, 0.0, 0.0, 0.0],
    "final_logit_softcapping": 3.0,
}  # fmt: skip
GEMMA_4: Sizes = HEADS | TIED | layers(SLIDING, FULL, SLIDING, FULL, SLIDING, FULL) | {
    "sliding_window": 8, "global_head_dim": 32, "hidden_size_per_layer_input": 16,
    "vocab_size_per_layer_input": 320, "final_logit_softcapping": 3.0,
}  # fmt: skip
GEMMA: dict[str, Case] = {
    "gemma": Case("GemmaConfig", HEADS | TIED),
    "gemma: odd": Case("GemmaConfig", HEADS | ODD_HEADS | TIED | {"num_key_value_heads": 1}),
    "gemma2": Case(
        "Gemma2Config", HEADS | TIED | WINDOWS | SOFT_CAPS | {"query_pre_attn_scalar": 24}
    ),
    "gemma2: odd": Case(
        "Gemma2Config",
        HEADS | ODD_HEADS | TIED | WINDOWS | {"sliding_window": 7, "attention_bias": True},
    ),
    "gemma3": Case(
        "Gemma3TextConfig",
        HEADS | TIED | WINDOWS | GEMMA_ROPES | {"query_pre_attn_scalar": 24},
    ),
    "gemma3: odd": Case(
        "Gemma3TextConfig",
        HEADS | ODD_HEADS | TIED | WINDOWS | SOFT_CAPS | {"sliding_window": 13},
    ),
    "gemma3: window of 270": Case(
        "Gemma3TextConfig", HEADS | TIED | WINDOWS | {"sliding_window": 270}
    ),
    "gemma3n": Case("Gemma3nTextConfig", GEMMA_3N),
    "gemma3n: odd": Case(
        "Gemma3nTextConfig",
        GEMMA_3N | ODD_HEADS | {"laurel_rank": 9, "altup_num_inputs": 2,
            "num_kv_shared_layers": 3, "hidden_size_per_layer_input": 24,
            "vocab_size_per_layer_input": 300},
    ),
    "gemma4": Case(
        "Gemma4TextConfig", GEMMA_4 | {"num_kv_shared_layers": 2, "use_double_wide_mlp": True}
    ),
    "gemma4: odd, values are keys": Case(
        "Gemma4TextConfig",
        GEMMA_4 | ODD_HEADS | {"attention_k_eq_v": True, "num_global_key_value_heads": 1,
            "hidden_size_per_layer_input": 0},
    ),
    "gemma4: experts": Case(
        "Gemma4TextConfig",
        GEMMA_4 | {"enable_moe_block": True, "num_experts": 5, "top_k_experts": 2,
            "moe_intermediate_size": 48, "hidden_size_per_layer_input": 0},
    ),
}  # fmt: skip
