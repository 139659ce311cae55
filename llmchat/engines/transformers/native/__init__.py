"""A compiled forward pass for the Llama family on the CPU, for int8 weights: one call into C a step."""

from llmchat.engines.transformers.native.build import library
from llmchat.engines.transformers.native.forward import NativeForward, supports

__all__ = ["NativeForward", "library", "supports"]
