"""The names of sampling parameters in other programs; a missing one has no equivalent.

Sources: vLLM's OpenAI-compatible server docs, llama.cpp's tools/server/README.md, Ollama's
docs/openai.md, SGLang's sampling parameters.
"""

from llmchat.settings.sampling import DISTRIBUTION

_OPENAI = {"temperature": "temperature", "top_p": "top_p"}
_VLLM = _OPENAI | {
    "top_k": "top_k",
    "min_p": "min_p",
    "repetition_penalty": "repetition_penalty",
}

# Program → our name → its name.
PARAMETER_NAMES: dict[str, dict[str, str]] = {
    "openai": _OPENAI,
    "ollama": _OPENAI,
    "vllm": _VLLM,
    "sglang": _VLLM,
    "llama.cpp": _VLLM | {"repetition_penalty": "repeat_penalty"},
    "llmchat": {name: name for name in DISTRIBUTION},
}

# llama.cpp's names of its samplers, in the order of the transformers engine and of Hugging Face's
# generate().
LLAMA_CPP_SAMPLERS = ["penalties", "temperature", "top_k", "top_p", "min_p"]
