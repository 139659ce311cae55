"""The names of sampling parameters in other programs; a missing one has no equivalent.

Sources: vLLM's OpenAI-compatible server docs, llama.cpp's tools/server/README.md, Ollama's
docs/openai.md, SGLang's sampling parameters.
"""

from llmchat.settings.sampling import PARAMETERS

_PENALTIES = {
    "frequency_penalty": "frequency_penalty",
    "presence_penalty": "presence_penalty",
}
_OLLAMA = {"temperature": "temperature", "top_p": "top_p", **_PENALTIES}
_OPENAI = _OLLAMA | {"logit_bias": "logit_bias"}
_VLLM = _OPENAI | {
    "top_k": "top_k",
    "min_p": "min_p",
    "repetition_penalty": "repetition_penalty",
}
_LLAMA_CPP = _VLLM | {
    "repetition_penalty": "repeat_penalty",
    "dry_multiplier": "dry_multiplier",
    "dry_base": "dry_base",
    "dry_allowed_length": "dry_allowed_length",
    "dry_sequence_breakers": "dry_sequence_breakers",
}

# Program → our name → its name.
PARAMETER_NAMES: dict[str, dict[str, str]] = {
    "openai": _OPENAI,
    "ollama": _OLLAMA,
    "vllm": _VLLM,
    "sglang": _VLLM,
    "llama.cpp": _LLAMA_CPP,
    "llmchat": {name: name for name in PARAMETERS},
}

# llama.cpp's names of its samplers, in the order of the transformers engine. It adds the bias
# before all of them.
LLAMA_CPP_SAMPLERS = ["penalties", "dry", "temperature", "top_k", "top_p", "min_p"]
