"""A compiled forward pass for the Llama family on the CPU, for int8 weights: one call into C a step."""

from llmchat.engines.transformers.compiled.build import library
from llmchat.engines.transformers.compiled.forward import NativeForward, supports

__all__ = ["NativeForward", "library", "supports"]
