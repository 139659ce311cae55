"""The forward pass of a plan in C, for int8 weights on a CPU: one call a pass.

Importing it compiles nothing; `find_kernels` builds the library when it is first needed.
"""

from llmchat.engines.transformers.compiled.build import find_kernels
from llmchat.engines.transformers.compiled.encoder_decoder import CompiledEncoderDecoder
from llmchat.engines.transformers.compiled.forward import CompiledForward, supports

__all__ = ["CompiledEncoderDecoder", "CompiledForward", "find_kernels", "supports"]
