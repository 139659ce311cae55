"""DeepSeek, GLM, and mixtures and hybrids of others."""

from support.family_cases.pieces import (
    DENSE,
    ENDS,
    EXPERTS,
    FIVE_EXPERTS,
    FULL,
    HEADS,
    LINEAR,
    LOCAL_EXPERTS,
    ODD,
    ODD_EXPERTS,
    ODD_HEADS,
    TIED,
    UNGROUPED,
    YARN,
    Case,
    Sizes,
    layers,
)

MLA: Sizes = UNGROUPED | {
    "num_key_value_heads": 4, "kv_lora_rank": 32, "qk_rope_head_dim": 16, "qk_nope_head_dim": 16,
    "v_head_dim": 16, "n_routed_experts": 4, "num_experts_per_tok": 2, "n_shared_experts": 1,
    "moe_intermediate_size": 48, "routed_scaling_factor": 1.5, "n_group": 1, "topk_group": 1,
}  # fmt: skip
ODD_MLA: Sizes = {
    "hidden_size": 80, "num_attention_heads": 5, "num_key_value_heads": 5, "vocab_size": 333,
    "kv_lora_rank": 48, "q_lora_rank": 40, "v_head_dim": 32, "moe_intermediate_size": 36,
    "intermediate_size": 101, "n_shared_experts": 2,
}  # fmt: skip
MLA_YARN: Sizes = {
    "rope_parameters": YARN["rope_parameters"] | {"mscale": 0.7, "mscale_all_dim": 0.9}
}
GROUPED_EXPERTS: Sizes = {
    "n_routed_experts": 8,
    "n_group": 4,
    "topk_group": 2,
    "num_experts_per_tok": 3,
}
DEEPSEEK: dict[str, Case] = {
    "deepseek-v2": Case(
        "DeepseekV2Config", MLA | MLA_YARN | {"q_lora_rank": None, "first_k_dense_replace": 1}
    ),
    "deepseek-v2: odd, groups": Case(
        "DeepseekV2Config",
        MLA | ODD_MLA | GROUPED_EXPERTS | {
            "topk_method": "group_limited_greedy", "kv_lora_rank": 24},
    ),
    "deepseek-v3": Case(
        "DeepseekV3Config",
        MLA | MLA_YARN | GROUPED_EXPERTS | {"q_lora_rank": 32, "first_k_dense_replace": 1},
    ),
    "deepseek-v3: odd": Case(
        "DeepseekV3Config",
        MLA | ODD_MLA | {"n_routed_experts": 5, "num_experts_per_tok": 3,
            "first_k_dense_replace": 2, "rope_interleave": False, "norm_topk_prob": False,
            "attention_bias": True},
    ),
}  # fmt: skip
# Texts without the token 1 have no context: they are read like an answer.
CHATGLM: Sizes = ENDS | {
    "hidden_size": 64, "inner_hidden_size": 96, "num_layers": 3, "num_attention_heads": 4,
    "max_sequence_length": 2048, "position_encoding_2d": True, "layernorm_epsilon": 1e-5,
    "tie_word_embeddings": False,
}  # fmt: skip
CHATGLM2: Sizes = ENDS | {
    "padded_vocab_size": 320, "hidden_size": 64, "ffn_hidden_size": 96, "num_layers": 3,
    "num_attention_heads": 4, "kv_channels": 16, "multi_query_attention": True,
    "multi_query_group_num": 2, "add_bias_linear": False, "add_qkv_bias": True, "rmsnorm": True,
    "post_layer_norm": True, "apply_residual_connection_post_layernorm": False,
    "seq_length": 2048, "layernorm_epsilon": 1e-5, "tie_word_embeddings": False,
}  # fmt: skip
GLM: dict[str, Case] = {
    "chatglm": Case("ChatGlmConfig", CHATGLM),
    "chatglm: odd": Case(
        "ChatGlmConfig",
        CHATGLM | {"hidden_size": 80, "num_attention_heads": 5, "inner_hidden_size": 101,
            "vocab_size": 333},
    ),
    "chatglm2": Case("ChatGlmConfig", CHATGLM2),
    "chatglm2: odd, layer norms, biases, residual after the norm": Case(
        "ChatGlmConfig",
        CHATGLM2 | {"padded_vocab_size": 333, "vocab_size": 333, "hidden_size": 72,
            "rmsnorm": False, "num_attention_heads": 3, "kv_channels": 32,
            "multi_query_attention": False,
            "ffn_hidden_size": 101, "rope_ratio": 500, "add_bias_linear": True,
            "apply_residual_connection_post_layernorm": True},
    ),
    "glm": Case("GlmConfig", HEADS),
    "glm: odd": Case("GlmConfig", HEADS | ODD_HEADS | TIED | {"attention_bias": False}),
    "glm4": Case("Glm4Config", HEADS),
    "glm4: odd": Case("Glm4Config", HEADS | ODD_HEADS | {"attention_bias": True}),
    "glm4-moe": Case(
        "Glm4MoeConfig",
        HEADS | {"n_routed_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 48,
            "use_qk_norm": True, "routed_scaling_factor": 1.5},
    ),
    "glm4-moe: odd": Case(
        "Glm4MoeConfig",
        HEADS | ODD_HEADS | GROUPED_EXPERTS | {"moe_intermediate_size": 36, "attention_bias": True,
            "n_shared_experts": 2, "norm_topk_prob": False},
    ),
    "glm4-moe-lite": Case("Glm4MoeLiteConfig", MLA | {"q_lora_rank": 32}),
    "glm4-moe-lite: odd": Case(
        "Glm4MoeLiteConfig", MLA | ODD_MLA | {"n_routed_experts": 5, "num_experts_per_tok": 3}
    ),
}  # fmt: skip

MAMBA2: Sizes = {
    "mamba_n_heads": 8, "mamba_d_head": 16, "mamba_d_state": 16, "mamba_n_groups": 2,
    "mamba_chunk_size": 8,
}  # fmt: skip
ODD_MAMBA2: Sizes = {
    "mamba_n_heads": 5, "mamba_d_head": 32, "mamba_d_state": 24, "mamba_n_groups": 1,
    "mamba_d_conv": 3, "mamba_chunk_size": 7,
}  # fmt: skip
MULTIPLIERS: Sizes = {
    "embedding_multiplier": 12.0, "logits_scaling": 6.0, "residual_multiplier": 0.22,
    "attention_multiplier": 0.11,
}  # fmt: skip
MIXERS: Sizes = {"layer_types": ["mamba", "attention", "mamba"]}
FALCON_H1: Sizes = DENSE | MAMBA2 | {
    "mamba_d_ssm": 128, "lm_head_multiplier": 0.8, "embedding_multiplier": 2.5,
    "mlp_multipliers": [0.9, 0.6], "key_multiplier": 0.7, "attention_out_multiplier": 0.9,
    "attention_in_multiplier": 1.1, "ssm_multipliers": [0.9, 0.8, 1.1, 0.7, 1.2],
    "ssm_in_multiplier": 1.2, "ssm_out_multiplier": 0.8,
}  # fmt: skip
KIMI: Sizes = MLA | {
    "num_local_experts": 4, "linear_num_heads": 4, "linear_head_dim": 16,
    "layer_types": [LINEAR, LINEAR, FULL], "mlp_layer_types": ["dense", "sparse", "sparse"],
}  # fmt: skip
# transformers clamps time steps to time_step_min in prompts, but not in answers: this is below all.
NEMOTRON_H: Sizes = DENSE | {
    "time_step_min": 1e-9,
    "head_dim": 16, "ssm_state_size": 16, "n_groups": 2, "mamba_num_heads": 8,
    "mamba_head_dim": 16, "chunk_size": 8, "n_routed_experts": 4, "num_experts_per_tok": 2,
    "moe_intermediate_size": 48, "moe_shared_expert_intermediate_size": 64,
    "routed_scaling_factor": 1.5,
    "layers_block_type": ["linear_attention", "moe", "full_attention", "linear_attention", "mlp"],
}  # fmt: skip
RWKV7: Sizes = ENDS | {
    "hidden_size": 64, "num_hidden_layers": 3, "intermediate_size": 128, "head_dim": 16,
    "decay_low_rank_dim": 32, "a_low_rank_dim": 24, "gate_low_rank_dim": 40,
    "v_low_rank_dim": 32, "norm_eps": 1e-5, "hidden_act": "sqrelu", "tie_word_embeddings": False,
}  # fmt: skip
HYBRID: dict[str, Case] = {
    "granite-moe": Case("GraniteMoeConfig", DENSE | MULTIPLIERS | LOCAL_EXPERTS | TIED),
    "granite-moe: odd": Case(
        "GraniteMoeConfig",
        DENSE | ODD | FIVE_EXPERTS | {"attention_bias": True},
    ),
    "granite-moe-hybrid": Case(
        "GraniteMoeHybridConfig",
        DENSE | MULTIPLIERS | MAMBA2 | MIXERS | LOCAL_EXPERTS | {"shared_intermediate_size": 64},
    ),
    "granite-moe-hybrid: odd, dense, rope": Case(
        "GraniteMoeHybridConfig",
        DENSE | ODD | ODD_MAMBA2 | MIXERS | {"num_local_experts": 0, "num_experts_per_tok": 0,
            "shared_intermediate_size": 75, "position_embedding_type": "rope"},
    ),
    "falcon-h1": Case("FalconH1Config", FALCON_H1),
    "falcon-h1: odd": Case(
        "FalconH1Config",
        FALCON_H1 | ODD | ODD_MAMBA2 | TIED | {"mamba_d_ssm": 160, "mamba_rms_norm": True,
            "mamba_norm_before_gate": False, "attention_bias": True},
    ),
    "lfm2": Case(
        "Lfm2Config",
        DENSE | TIED | layers("conv", FULL, "conv") | {"block_multiple_of": 32},
    ),
    "lfm2: odd, biases": Case(
        "Lfm2Config",
        DENSE | ODD | layers("conv", FULL, "conv") | {"conv_bias": True, "conv_L_cache": 4,
            "block_auto_adjust_ff_dim": False},
    ),
    "lfm2-moe": Case(
        "Lfm2MoeConfig", DENSE | EXPERTS | TIED | layers("conv", FULL, "conv") | {
            "num_dense_layers": 1},
    ),
    "lfm2-moe: odd": Case(
        "Lfm2MoeConfig", DENSE | ODD | ODD_EXPERTS | layers("conv", FULL, "conv") | {
            "num_dense_layers": 1, "norm_topk_prob": False, "routed_scaling_factor": 1.3},
    ),
    "nemotron-h": Case("NemotronHConfig", NEMOTRON_H),
    "nemotron-h: odd": Case(
        "NemotronHConfig",
        NEMOTRON_H | ODD | {"mamba_num_heads": 6, "mamba_head_dim": 16, "n_groups": 3,
            "conv_kernel": 3, "use_bias": True, "mlp_bias": True, "n_routed_experts": 8,
            "n_group": 4, "topk_group": 2, "moe_intermediate_size": 36, "use_conv_bias": False,
            "moe_shared_expert_intermediate_size": 75, "norm_topk_prob": False,
            "layers_block_type": ["mlp", "linear_attention", "moe", "full_attention"]},
    ),
    "kimi-linear": Case("KimiLinearConfig", KIMI),
    "kimi-linear: odd": Case(
        "KimiLinearConfig",
        KIMI | ODD_MLA | {"num_local_experts": 8, "n_group": 4, "topk_group": 2,
            "num_experts_per_tok": 3, "linear_num_heads": 5, "linear_head_dim": 32,
            "linear_conv_kernel_dim": 3, "norm_topk_prob": False,
            "layer_types": [FULL, LINEAR, LINEAR], "mlp_layer_types": ["sparse"] * 3},
    ),
    "rwkv": Case(
        "RwkvConfig",
        ENDS | {"hidden_size": 64, "num_hidden_layers": 7, "intermediate_size": 96},
    ),
    "rwkv7": Case("Rwkv7Config", RWKV7),
    "rwkv7: odd": Case(
        "Rwkv7Config",
        RWKV7 | {"hidden_size": 96, "head_dim": 32, "intermediate_size": 101, "vocab_size": 333,
            "gate_low_rank_dim": 100, "decay_low_rank_dim": 17},
    ),
    "rwkv: odd": Case(
        "RwkvConfig",
        ENDS | {"hidden_size": 72, "num_hidden_layers": 3, "intermediate_size": 101,
            "attention_hidden_size": 72, "vocab_size": 333},
    ),
}  # fmt: skip
