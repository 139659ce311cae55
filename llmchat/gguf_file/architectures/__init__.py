"""The table of llama.cpp's architectures: one row each, for reading files and for writing them.

Keys and their meaning: gguf-py's constants.py and llama.cpp's converters (conversion/*.py).
"""

from llmchat.gguf_file.architectures import dense, experts, layer_norms, recurrent
from llmchat.gguf_file.architectures.row import COMMON, Architecture, Facts, plain

ARCHITECTURES: dict[str, Architecture] = {
    **dense.ARCHITECTURES,
    **layer_norms.ARCHITECTURES,
    **experts.ARCHITECTURES,
    **recurrent.ARCHITECTURES,
}

__all__ = ["ARCHITECTURES", "COMMON", "Architecture", "Facts", "plain"]
