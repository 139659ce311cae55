"""Tiny configs of every architecture that is written as a GGUF file, as llama.cpp runs them.

What llama.cpp does not read from a file has the values of the published models here: the scale of
Gemma's attention, the pattern of windows, and where SmolLM3 does not rotate.
"""

from support.family_cases.pieces import (
    DENSE,
    EXPERTS,
    FULL,
    HEADS,
    LOCAL_EXPERTS,
    SHARED,
    SLIDING,
    TIED,
    WINDOWS,
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
_OWN = {
    "cohere2": Case("Cohere2Config", DENSE | TIED | _EVERY_FOURTH | {"logit_scale": 0.5}),
    "gemma2": Case(
        "Gemma2Config", HEADS | TIED | SOFT_CAPS | _EVERY_SECOND | {"query_pre_attn_scalar": 16}
    ),
    "gemma3": Case(
        "Gemma3TextConfig",
        HEADS | TIED | GEMMA_ROPES | _EVERY_SIXTH | {"query_pre_attn_scalar": 16},
    ),
    "gpt-oss": Case("GptOssConfig", HEADS | LOCAL_EXPERTS | _EVERY_SECOND | _NO_RAMP),
    "olmo3": Case(
        "Olmo3Config",
        DENSE | WINDOWS | {"rope_parameters": {
            SLIDING: {"rope_type": "default", "rope_theta": 10000.0}, FULL: YARN["rope_parameters"],
        }},
    ),
    "olmoe": Case(
        "OlmoeConfig",
        DENSE | {"num_key_value_heads": 4, "num_experts": 4, "num_experts_per_tok": 2},
    ),
    "qwen2-moe": Case("Qwen2MoeConfig", DENSE | EXPERTS | SHARED | {"norm_topk_prob": False}),
    "smollm3": Case("SmolLM3Config", DENSE | TIED | {"num_hidden_layers": 4}),
    "starcoder2": Case("Starcoder2Config", DENSE | TIED | {"sliding_window": None}),
}  # fmt: skip
_AS_ELSEWHERE = (
    "cohere", "ernie4.5", "ernie4.5-moe", "exaone4: odd, no window", "gemma", "glm4", "glm4-moe",
    "granite", "granite-moe", "hunyuan", "lfm2", "lfm2-moe", "llama", "llama: biases",
    "llama: heads of 24", "llama: linear rope", "llama: llama3 rope", "llama: odd",
    "llama: tied, one head of keys", "llama: yarn rope", "mistral", "mixtral", "nemotron", "olmo2",
    "phi3", "qwen2", "qwen2: odd, tied", "qwen3", "qwen3-moe", "qwen3: yarn rope", "seed-oss",
    "stablelm", "stablelm: parallel, norms",
)  # fmt: skip
GGUF_CASES = {name: CASES[name] for name in _AS_ELSEWHERE} | _OWN
# What our engine reads again, and llama.cpp does not run like this.
ONLY_OURS = {
    name: CASES[name]
    for name in (
        "cohere: odd, norms", "ernie4.5-moe: odd, biases", "exaone4", "hunyuan: odd, biases, alpha",
        "phi3: longrope", "phi3: longrope, partial rotary, tied", "phi3: odd, window",
    )
}  # fmt: skip
