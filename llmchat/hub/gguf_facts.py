"""Shapes and config of a GGUF file from its header, under the names that checkpoints use; its tensors are not read."""

from pathlib import Path
from typing import Any

from llmchat.hub.headers import Shapes

_CONFIG = {
    "block_count": "num_hidden_layers",
    "embedding_length": "hidden_size",
    "context_length": "max_position_embeddings",
    "attention.head_count": "num_attention_heads",
    "attention.head_count_kv": "num_key_value_heads",
    "attention.key_length": "head_dim",
}
# Tensors that stay 16 bit when the model is loaded, see `memory.weights`.
_NAMES = {"token_embd.weight": "embed_tokens.weight", "output.weight": "lm_head.weight"}


def read_gguf(path: Path) -> tuple[Shapes, dict[str, Any]]:
    """({}, {}) for a file that cannot be read: its conversion says why."""
    from gguf import GGUFReader

    try:
        reader = GGUFReader(path)
        shapes = {_NAMES.get(tensor.name, tensor.name): tuple(map(int, reversed(tensor.shape))) for tensor in reader.tensors}
        kind = reader.fields["general.architecture"].contents()
        values = {ours: reader.get_field(f"{kind}.{theirs}") for theirs, ours in _CONFIG.items()}
        return shapes, {"model_type": kind} | {name: int(field.contents()) for name, field in values.items() if field is not None}
    except (ValueError, KeyError, IndexError, OSError, TypeError, AttributeError):
        return {}, {}
