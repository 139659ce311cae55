"""Phi, gpt-oss, Cohere and others of today, and the families of 2023."""

from support.family_cases.pieces import (
    DENSE,
    ENDS,
    FIVE_EXPERTS,
    GPT,
    HEADS,
    LOCAL_EXPERTS,
    LONGROPE,
    ODD,
    ODD_GPT,
    ODD_HEADS,
    TIED,
    UNGROUPED,
    WINDOWS,
    YARN,
    Case,
    Sizes,
    rope,
)

OTHERS: dict[str, Case] = {
    "phi3": Case("Phi3Config", DENSE),
    "phi3: odd, window": Case("Phi3Config", DENSE | ODD | {"sliding_window": 8}),
    "phi3: longrope": Case("Phi3Config", DENSE | LONGROPE),
    "phi3: longrope, partial rotary, tied": Case(
        "Phi3Config",
        DENSE | LONGROPE | TIED | {"partial_rotary_factor": 0.75} | rope(
            "longrope", short_factor=[1.0, 1.1, 1.2, 1.3, 1.4, 1.5],
            long_factor=[1.0, 1.7, 2.5, 3.0, 6.0, 9.0], partial_rotary_factor=0.75),
    ),
    "phi: norms of heads": Case(
        "PhiConfig", DENSE | {"qk_layernorm": True, "partial_rotary_factor": 0.25}
    ),
    "starcoder2: window": Case("Starcoder2Config", DENSE | TIED | {"sliding_window": 8}),
    "gpt-oss": Case(
        "GptOssConfig",
        HEADS | WINDOWS | LOCAL_EXPERTS | {
            "rope_parameters": YARN["rope_parameters"] | {"truncate": False}},
    ),
    "gpt-oss: odd": Case(
        "GptOssConfig",
        HEADS | ODD_HEADS | WINDOWS | FIVE_EXPERTS | {"sliding_window": 7, "swiglu_limit": 1.0},
    ),
    "ernie4.5-moe": Case(
        "Ernie4_5_MoeConfig",
        DENSE | TIED | {"moe_intermediate_size": 48, "moe_k": 2, "moe_num_experts": 4,
            "moe_num_shared_experts": 1},
    ),
    "ernie4.5-moe: odd, biases": Case(
        "Ernie4_5_MoeConfig",
        DENSE | ODD | {"moe_intermediate_size": 36, "moe_k": 3, "moe_num_experts": 5,
            "moe_num_shared_experts": 2, "moe_layer_start_index": 0, "moe_layer_interval": 2,
            "use_bias": True},
    ),
    "hunyuan-moe": Case(
        "HunYuanMoEV1Config", HEADS | TIED | {"num_experts": 4, "moe_topk": 2}
    ),
    "hunyuan-moe: odd": Case(
        "HunYuanMoEV1Config",
        HEADS | ODD_HEADS | {"num_experts": 5, "moe_topk": 3, "intermediate_size": 100},
    ),
    "cohere": Case("CohereConfig", DENSE | TIED | {"logit_scale": 0.5}),
    "cohere: odd, norms": Case(
        "CohereConfig",
        DENSE | ODD | TIED | {"logit_scale": 0.3, "use_qk_norm": True, "attention_bias": True},
    ),
    "cohere2": Case("Cohere2Config", DENSE | TIED | WINDOWS | {"logit_scale": 0.5}),
    "cohere2: odd": Case(
        "Cohere2Config", DENSE | ODD | TIED | WINDOWS | {"logit_scale": 0.3, "sliding_window": 7}
    ),
    "stablelm": Case("StableLmConfig", DENSE | {"partial_rotary_factor": 0.5}),
    "stablelm: odd, biases": Case(
        "StableLmConfig", DENSE | ODD | {"use_qkv_bias": True, "partial_rotary_factor": 0.25}
    ),
    "stablelm: parallel, norms": Case(
        "StableLmConfig", DENSE | {"use_parallel_residual": True, "qk_layernorm": True}
    ),
    "nemotron": Case("NemotronConfig", DENSE),
    "nemotron: odd, biases": Case(
        "NemotronConfig", DENSE | ODD | {"attention_bias": True, "mlp_bias": True, "head_dim": 16}
    ),
}  # fmt: skip

FALCON: Sizes = UNGROUPED | TIED
OPT: Sizes = ENDS | {
    "hidden_size": 64, "ffn_dim": 96, "num_hidden_layers": 3, "num_attention_heads": 4,
    "max_position_embeddings": 1024,
}  # fmt: skip
T5: Sizes = {
    "vocab_size": 320, "d_model": 64, "d_kv": 16, "d_ff": 96, "num_layers": 2, "num_heads": 4,
    "n_positions": 512, "pad_token_id": 0, "eos_token_id": 2, "decoder_start_token_id": 0,
    "feed_forward_proj": "gated-gelu", "tie_word_embeddings": False,
}  # fmt: skip
OF_2023: dict[str, Case] = {
    "gpt-neox": Case("GPTNeoXConfig", UNGROUPED | {"rotary_pct": 0.5}),
    "gpt-neox: odd, one after the other": Case(
        "GPTNeoXConfig",
        UNGROUPED | ODD | {"rotary_pct": 0.25, "use_parallel_residual": False},
    ),
    "gpt-neox: no biases, tanh": Case(
        "GPTNeoXConfig",
        UNGROUPED | {"rotary_pct": 1.0, "attention_bias": False, "hidden_act": "gelu_fast"},
    ),
    "gpt-j": Case("GPTJConfig", GPT | {"rotary_dim": 8}),
    "gpt-j: odd": Case("GPTJConfig", GPT | ODD_GPT | {"rotary_dim": 4, "n_inner": 101}),
    "falcon-7b": Case("FalconConfig", FALCON | {"multi_query": True, "parallel_attn": True}),
    "falcon-40b": Case(
        "FalconConfig", FALCON | {"new_decoder_architecture": True, "num_kv_heads": 2}
    ),
    "falcon-40b: odd, biases, one norm": Case(
        "FalconConfig",
        FALCON | {"hidden_size": 96, "num_attention_heads": 6, "num_kv_heads": 3, "bias": True,
            "new_decoder_architecture": True, "vocab_size": 333, "num_ln_in_parallel_attn": 1,
            "ffn_hidden_size": 101},
    ),
    "falcon-rw": Case(
        "FalconConfig",
        FALCON | {"multi_query": False, "parallel_attn": False, "alibi": True, "bias": True},
    ),
    "falcon-rw: odd": Case(
        "FalconConfig",
        FALCON | {"multi_query": False, "parallel_attn": False, "alibi": True, "bias": True,
            "hidden_size": 80, "num_attention_heads": 5, "vocab_size": 333},
    ),
    "mpt": Case("MptConfig", ENDS | {"d_model": 64, "n_heads": 4, "n_layers": 3}),
    "mpt: odd, scale": Case(
        "MptConfig",
        ENDS | {"d_model": 80, "n_heads": 5, "n_layers": 3, "vocab_size": 333,
            "attn_config": {"clip_qkv": 0.9, "softmax_scale": 0.2, "alibi_bias_max": 6}},
    ),
    "bloom": Case("BloomConfig", ENDS | {"hidden_size": 64, "n_layer": 3, "n_head": 4}),
    "bloom: odd, residual after the norm": Case(
        "BloomConfig",
        ENDS | {"hidden_size": 80, "n_layer": 3, "n_head": 5, "vocab_size": 333,
            "apply_residual_connection_post_layernorm": True},
    ),
    "gpt-bigcode": Case("GPTBigCodeConfig", GPT | {"multi_query": True}),
    "gpt-bigcode: odd, all heads have keys": Case(
        "GPTBigCodeConfig", GPT | ODD_GPT | {"multi_query": False, "n_inner": 101}
    ),
    "gpt2: matrices turned, scores by layer": Case(
        "GPT2Config", GPT | TIED | {"scale_attn_by_inverse_layer_idx": True, "n_inner": 100}
    ),
    "gpt-neo: windows": Case(
        "GPTNeoConfig",
        ENDS | {"hidden_size": 64, "num_layers": 4, "num_heads": 4, "window_size": 8,
            "attention_types": [[["global", "local"], 2]], "max_position_embeddings": 1024},
    ),
    "opt": Case("OPTConfig", OPT),
    "opt: odd, norm after, projections": Case(
        "OPTConfig",
        OPT | {"hidden_size": 80, "num_attention_heads": 5, "ffn_dim": 101, "vocab_size": 333,
            "do_layer_norm_before": False, "word_embed_proj_dim": 48},
    ),
    "t5": Case("T5Config", T5),
    "t5: odd, tied": Case(
        "T5Config",
        T5 | {"feed_forward_proj": "relu", "tie_word_embeddings": True, "d_model": 72,
            "num_heads": 3, "d_ff": 101, "vocab_size": 333},
    ),
    "t5: multilingual, near buckets": Case(
        "MT5Config",
        T5 | {"relative_attention_num_buckets": 8, "relative_attention_max_distance": 12},
    ),
    "t5: biases in each layer, one layer that answers": Case(
        "UMT5Config", T5 | {"num_decoder_layers": 1, "tie_word_embeddings": True}
    ),
}  # fmt: skip
