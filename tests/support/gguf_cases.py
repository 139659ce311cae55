"""Tiny configs of every architecture that is written as a GGUF file, as llama.cpp runs them.

What llama.cpp does not read from a file has the values of the published models here: the scale of
Gemma's attention, the pattern of windows, and where SmolLM3 does not rotate.
"""

from support.family_cases.mixtures import (
    FALCON_H1,
    GROUPED_EXPERTS,
    MAMBA2,
    MIXERS,
    MLA,
    MULTIPLIERS,
    NEMOTRON_H,
)
from support.family_cases.pieces import (
    DENSE,
    EXPERTS,
    FULL,
    GPT,
    HEADS,
    LINEAR,
    LOCAL_EXPERTS,
    SHARED,
    SLIDING,
    TIED,
    UNGROUPED,
    YARN,
    Case,
    Sizes,
    layers,
)
from support.family_cases.qwen_gemma import GEMMA_ROPES, SOFT_CAPS
from support.tiny_families import CASES

_EVERY_SIXTH: Sizes = layers(*[SLIDING] * 5, FULL) | {"sliding_window": 8}
_EVERY_FOURTH: Sizes = layers(*[SLIDING] * 3, FULL) | {"sliding_window": 8}
_EVERY_SECOND: Sizes = layers(SLIDING, FULL, SLIDING, FULL) | {"sliding_window": 8}
# llama.cpp rounds the borders of YaRN's ramp, and gpt-oss does not; without a ramp they agree.
_NO_RAMP: Sizes = {"rope_parameters": YARN["rope_parameters"] | {"truncate": False, "factor": 1.0}}
# Files have one magnitude of YaRN for both.
_MAGNITUDE: Sizes = {
    "rope_parameters": YARN["rope_parameters"] | {"mscale": 0.9, "mscale_all_dim": 0.9}
}
_LOW_RANK: Sizes = {"q_lora_rank": 32, "first_k_dense_replace": 1}
# Falcon-H1's factors are in the weights of a file: without them it is the same model.
_FACTORS = {name: 1.0 for name in FALCON_H1 if name.endswith("multiplier")} | {
    "mlp_multipliers": [1.0, 1.0], "ssm_multipliers": [1.0] * 5, "key_multiplier": 1.0,
}  # fmt: skip
UNTIED: Sizes = {"tie_word_embeddings": False}
_OWN = {
    "deepseek-v2: low rank": Case("DeepseekV2Config", MLA | _LOW_RANK),
    "deepseek-v3: groups, yarn": Case(
        "DeepseekV3Config", MLA | _LOW_RANK | _MAGNITUDE | GROUPED_EXPERTS
    ),
    "falcon-h1: norm": Case(
        "FalconH1Config",
        FALCON_H1 | _FACTORS | {"mamba_rms_norm": True, "mamba_norm_before_gate": False},
    ),
    "granite-moe-hybrid: dense": Case(
        "GraniteMoeHybridConfig",
        DENSE | MULTIPLIERS | MAMBA2 | MIXERS | {"num_local_experts": 0, "num_experts_per_tok": 0,
            "shared_intermediate_size": 80},
    ),
    "nemotron-h: experts": Case(
        "NemotronHConfig", NEMOTRON_H | {"layers_block_type": [LINEAR, "moe", FULL, LINEAR]}
    ),
    "nemotron-h: dense": Case(
        "NemotronHConfig", NEMOTRON_H | {"layers_block_type": [LINEAR, "mlp", FULL, LINEAR]}
    ),
    "llama4: chunks of 8192": Case(
        "Llama4TextConfig",
        HEADS | LOCAL_EXPERTS | {
            "num_hidden_layers": 4, "num_experts_per_tok": 1, "interleave_moe_layer_step": 2,
            "intermediate_size_mlp": 112,
        },
    ),
    "cohere2": Case("Cohere2Config", DENSE | TIED | _EVERY_FOURTH | {"logit_scale": 0.5}),
    "gemma2": Case(
        "Gemma2Config", HEADS | TIED | SOFT_CAPS | _EVERY_SECOND | {"query_pre_attn_scalar": 16}
    ),
    "gemma3": Case(
        "Gemma3TextConfig",
        HEADS | TIED | GEMMA_ROPES | _EVERY_SIXTH | {"query_pre_attn_scalar": 16},
    ),
    "gpt2": Case("GPT2Config", GPT | TIED),
    "gpt-oss": Case("GptOssConfig", HEADS | LOCAL_EXPERTS | _EVERY_SECOND | _NO_RAMP),
    "olmo": Case("OlmoConfig", DENSE | {"clip_qkv": 0.9}),
    "olmoe": Case(
        "OlmoeConfig",
        DENSE | {"num_key_value_heads": 4, "num_experts": 4, "num_experts_per_tok": 2},
    ),
    "phi": Case("PhiConfig", UNGROUPED | {"partial_rotary_factor": 0.5}),
    "qwen2-moe": Case("Qwen2MoeConfig", DENSE | EXPERTS | SHARED | {"norm_topk_prob": False}),
    "smollm3": Case("SmolLM3Config", DENSE | TIED | {"num_hidden_layers": 4}),
    "starcoder2": Case("Starcoder2Config", DENSE | TIED | {"sliding_window": None}),
}  # fmt: skip
_AS_ELSEWHERE = (
    "apertus", "arcee", "bloom", "chatglm2", "cohere", "ernie4.5", "ernie4.5-moe",
    "exaone4: odd, no window", "falcon-40b", "falcon-7b", "gemma", "gemma4", "gemma4: experts",
    "glm", "glm4", "glm4-moe", "glm4-moe-lite", "gpt-bigcode", "gpt-neox",
    "gpt-neox: odd, one after the other", "granite", "granite-moe", "granite-moe-hybrid", "hunyuan",
    "hunyuan-moe", "kimi-linear", "lfm2", "lfm2-moe", "llama", "llama: biases",
    "llama: heads of 24", "llama: linear rope", "llama: llama3 rope", "llama: odd",
    "llama: tied, one head of keys", "llama: yarn rope", "ministral3", "mistral", "mixtral", "mpt",
    "nemotron", "olmo2", "olmo3", "phi3", "qwen2", "qwen2: odd, tied", "qwen3", "qwen3-moe",
    "qwen3-next", "qwen3.5", "qwen3.5-moe", "qwen3: yarn rope", "seed-oss", "stablelm",
    "stablelm: parallel, norms",
)  # fmt: skip
GGUF_CASES = {name: CASES[name] for name in _AS_ELSEWHERE} | _OWN
# Architectures that are read, and whose models are written as another one: a case, and the keys of
# its file that the writer does not take from the config.
READ_ALONE: dict[str, tuple[Case, Sizes]] = {
    # llama.cpp tells the 7B model, which rotates, by its depth.
    "baichuan": (CASES["llama"]._replace(sizes=DENSE | {"num_hidden_layers": 32}), {}),
    "codeshell": (_OWN["starcoder2"]._replace(sizes=_OWN["starcoder2"].sizes | UNTIED), {}),
    "exaone": (CASES["llama"], {}),
    "internlm2": (CASES["llama"], {}),
    "minicpm": (
        CASES["granite"]._replace(sizes=CASES["granite"].sizes | {"attention_multiplier": 0.25}),
        {"embedding_scale": 12.0, "residual_scale": 0.22, "logit_scale": 8.0},
    ),
    "orion": (CASES["stablelm"]._replace(sizes=DENSE | {"partial_rotary_factor": 1.0}), {}),
    "pangu-embedded": (CASES["llama"]._replace(sizes=DENSE | {"attention_bias": True}), {}),
    "qwen": (
        CASES["qwen2"]._replace(sizes=UNGROUPED | {"num_key_value_heads": 4}),
        {"feed_forward_length": 192},
    ),
    "qwen2vl": (CASES["qwen2"], {"rope.dimension_sections": [2, 3, 3, 0]}),
    "qwen3vl": (CASES["qwen3"], {"rope.dimension_sections": [2, 3, 3, 0]}),
    "qwen3vlmoe": (CASES["qwen3-moe"], {"rope.dimension_sections": [2, 3, 3, 0]}),
    "xverse": (CASES["llama"]._replace(sizes=UNGROUPED), {}),
}
# What our engine reads again, and llama.cpp does not run like this.
ONLY_OURS = {
    name: CASES[name]
    for name in (
        "cohere: odd, norms", "ernie4.5-moe: odd, biases", "exaone4", "gemma3n",
        "gemma4: odd, values are keys", "glm4-moe-lite: odd", "hunyuan: odd, biases, alpha",
        "kimi-linear: odd", "nemotron-h", "phi3: longrope", "phi3: longrope, partial rotary, tied",
        "phi3: odd, window", "qwen3.5: odd",
    )
}  # fmt: skip
# What llama.cpp does not load, and the line that says why.
REFUSED_THERE = {
    "arcee: odd, all biases": (CASES["arcee: odd, all biases"], "have no `blk.0.ffn_down.bias`"),
    "cohere: norms": (Case("CohereConfig", DENSE | TIED | {"use_qk_norm": True}), "from 64 layers"),
    "cohere: odd, norms": (CASES["cohere: odd, norms"], "have no `blk.0.attn_output.bias`"),
    "deepseek-v2: full rank, three layers": (
        Case("DeepseekV2Config", MLA | {"q_lora_rank": None, "first_k_dense_replace": 1}),
        "full rank only with 26 or 27 layers",
    ),
    "ernie4.5: odd, biases": (CASES["ernie4.5: odd, biases"], "have no `blk.0.ffn_down.bias`"),
    "ernie4.5-moe: every second layer": (
        Case(
            "Ernie4_5_MoeConfig",
            CASES["ernie4.5-moe"].sizes
            | {"num_hidden_layers": 4, "moe_layer_interval": 2, "moe_layer_end_index": 3},
        ),
        "experts in all layers behind the dense ones",
    ),
    "ernie4.5-moe: odd, biases": (CASES["ernie4.5-moe: odd, biases"], "have no `output.bias`"),
    "falcon: biases": (
        Case("FalconConfig", CASES["falcon-40b"].sizes | {"bias": True}),
        "have no `blk.0.ffn_down.bias`",
    ),
    "gemma3n": (CASES["gemma3n"], "must have `altup.num_inputs` = 4, not 3"),
    "gpt-neox: no biases": (
        Case("GPTNeoXConfig", CASES["gpt-neox"].sizes | {"attention_bias": False}),
        "must have a bias in `attn_qkv`",
    ),
    "hunyuan: odd, biases, alpha": (
        CASES["hunyuan: odd, biases, alpha"], "have no `blk.0.attn_output.bias`"
    ),
    "kimi-linear: odd": (CASES["kimi-linear: odd"], "queries of full rank"),
    "nemotron-h": (CASES["nemotron-h"], "dense layers or layers with experts, not both"),
    "olmo2: odd": (CASES["olmo2: odd"], "have no `blk.0.attn_output.bias`"),
    "olmo2: tied": (Case("Olmo2Config", DENSE | TIED), "must have an output head"),
    "qwen2: wide heads": (
        Case("Qwen2Config", HEADS | {"head_dim": 24}), "64 numbers wide together, not 96"
    ),
    "qwen3: odd, tied, biases": (
        CASES["qwen3: odd, tied, biases"], "have no `blk.0.attn_output.bias`"
    ),
    "qwen3.5: odd": (CASES["qwen3.5: odd"], "keys and values of one width"),
    "seed-oss: odd, all biases": (
        CASES["seed-oss: odd, all biases"], "have no `blk.0.ffn_down.bias`"
    ),
}  # fmt: skip
# What llama.cpp computes in another way.
DIFFERENT_THERE = {
    "deepseek-v2: odd, groups": "by its best two",
    "exaone4": "a sliding window only with 64 layers",
    "phi3: longrope": "by the context size",
    "phi3: odd, window": "have no sliding window",
}
