"""Handles output heads that share the embedding's matrix, and adapters that change one of them.

peft trains such an adapter on a matrix of its own, so after merging the two differ: the model is
untied, and its config must say so. Anything else would change the embedding with the head.
"""

from collections.abc import Mapping
from typing import Any

Shapes = Mapping[str, tuple[int, ...]]

HEAD = "lm_head.weight"
# The last part of an embedding's name, by family: Llama and most others, GPT-2, Falcon and BLOOM,
# GPT-NeoX.
_EMBEDDINGS = ("embed_tokens.weight", "wte.weight", "word_embeddings.weight", "embed_in.weight")


def embedding_of(shapes: Shapes) -> str | None:
    """The embedding's name; None if the checkpoint has none, or several (encoder and decoder)."""
    found = [name for name in shapes if name.endswith(_EMBEDDINGS)]
    return found[0] if len(found) == 1 else None


def is_tied(config: Mapping[str, Any], shapes: Shapes) -> bool:
    """Whether the output head is the embedding's matrix."""
    return bool(config.get("tie_word_embeddings", False)) or HEAD not in shapes


def with_head(shapes: Shapes, config: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """The shapes with an entry for the head, even if it is the embedding's matrix."""
    embedding = embedding_of(shapes)
    if embedding is None or not is_tied(config, shapes):
        return dict(shapes)
    return {**shapes, HEAD: shapes[embedding]}


def with_ties(config: dict[str, Any], untied: bool) -> dict[str, Any]:
    """The config, without the tie between head and embedding if they were untied."""
    return config | {"tie_word_embeddings": False} if untied else config
