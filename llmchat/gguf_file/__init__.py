"""Read the header of a GGUF file, without torch and without trust in the file."""

from llmchat.gguf_file.header import GgufHeader, NeedsMore, TensorInfo, read_header
from llmchat.gguf_file.parts import PART, joined, parts_of, read_model
from llmchat.gguf_file.types import GGML_TYPES, GgmlType, file_kind

__all__ = [
    "GGML_TYPES", "PART", "GgmlType", "GgufHeader", "NeedsMore", "TensorInfo", "file_kind",
    "joined", "parts_of", "read_header", "read_model",
]  # fmt: skip
