"""A compiled forward pass for the Llama family on the CPU, for int8 weights: one call into C a step."""

from llmchat.engines.transformers.compiled.build import find_kernels
from llmchat.engines.transformers.compiled.forward import CompiledForward, supports

__all__ = ["CompiledForward", "find_kernels", "supports"]
