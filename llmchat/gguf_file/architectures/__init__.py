"""The table of llama.cpp's architectures: one row each, for reading files and for writing them.

Keys and their meaning: gguf-py's constants.py and llama.cpp's converters (conversion/*.py).
"""

from llmchat.gguf_file.architectures import (
    dense,
    experts,
    gemmas,
    gpt,
    hybrids,
    latent,
    layer_norms,
    recurrent,
    sequences,
)
from llmchat.gguf_file.architectures.row import COMMON, Architecture, Facts, plain

ARCHITECTURES: dict[str, Architecture] = {
    **dense.ARCHITECTURES,
    **layer_norms.ARCHITECTURES,
    **gpt.ARCHITECTURES,
    **experts.ARCHITECTURES,
    **recurrent.ARCHITECTURES,
    **hybrids.ARCHITECTURES,
    **latent.ARCHITECTURES,
    **gemmas.ARCHITECTURES,
    **sequences.ARCHITECTURES,
}

__all__ = ["ARCHITECTURES", "COMMON", "Architecture", "Facts", "plain"]
