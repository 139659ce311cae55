"""What sentence-transformers wrote beside a checkpoint, as an EmbeddingSpec.

`modules.json` names the steps, see
https://sbert.net/docs/sentence_transformer/usage/custom_models.html.
"""

from pathlib import Path
from typing import Any

from llmchat.engines.checkpoint_files import read_json, read_json_list
from llmchat.engines.embedding_spec import EmbeddingSpec
from llmchat.errors import Mismatch
from llmchat.memory_estimate import own_context

_STEPS = ("Transformer", "Pooling", "Dense", "Normalize")
_POOLINGS = {"mean_tokens": "mean", "cls_token": "cls", "lasttoken": "last"}


def spec_of_folder(folder: Path) -> EmbeddingSpec:
    """The use of an embedder without a preset. Raises Mismatch for steps that are not supported."""
    steps = read_json_list(folder / "modules.json")
    kinds = [str(step.get("type")).rpartition(".")[2] for step in steps]
    if kinds[:2] != ["Transformer", "Pooling"] or not set(kinds) <= set(_STEPS):
        raise Mismatch(f"{folder.name} uses unsupported steps: {', '.join(kinds) or 'none'}")
    paths = [str(step.get("path", "")) for step in steps]
    dense = tuple(path for path, kind in zip(paths, kinds, strict=True) if kind == "Dense")
    prompts = read_json(folder / "config_sentence_transformers.json").get("prompts") or {}
    return EmbeddingSpec(
        _dimensions(folder, dense),
        _longest(folder),
        _pooling(folder, paths[1]),
        query=_prompt(prompts, "query"),
        passage=_prompt(prompts, "document", "passage"),
        dense=dense,
        normalise="Normalize" in kinds,
    )


def _dimensions(folder: Path, dense: tuple[str, ...]) -> int:
    if dense:
        return int(read_json(folder / dense[-1] / "config.json")["out_features"])
    return int(read_json(folder / "config.json").get("hidden_size") or 0)


def _longest(folder: Path) -> int:
    own = own_context(read_json(folder / "config.json"))
    named = read_json(folder / "sentence_bert_config.json").get("max_seq_length")
    return min(own, int(named or own))


def _pooling(folder: Path, path: str) -> Any:
    pooling = read_json(folder / path / "config.json")
    chosen = [
        name.removeprefix("pooling_mode_")
        for name, on in pooling.items()
        if name.startswith("pooling_mode_") and on is True
    ]
    if len(chosen) != 1 or chosen[0] not in _POOLINGS:
        raise Mismatch(f"{folder.name} uses unsupported pooling: {', '.join(chosen) or 'none'}")
    return _POOLINGS[chosen[0]]


def _prompt(prompts: Any, *names: str) -> str:
    found = (prompts.get(name) for name in names) if isinstance(prompts, dict) else ()
    return next((str(prompt) for prompt in found if prompt), "")
