"""What `llmchat doctor` finds about an embedder or a reranker. Reads no weights."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from llmchat.engines.checkpoint_files import read_json
from llmchat.engines.embedding_spec import EmbeddingSpec
from llmchat.errors import ModelNotFound
from llmchat.hub import find
from llmchat.memory_estimate import own_context
from llmchat.presets import Preset
from llmchat.settings import World

# Level, subject and text, see doctor.Finding.
Line = tuple[Literal["ok", "note", "problem"], str, str]


def examine(preset: Preset, world: World) -> Iterator[Line]:
    """How texts are written for the model, and whether its files agree with its preset."""
    spec = preset.embedder or preset.reranker
    assert spec is not None
    if preset.embedder:
        yield from _of_embedder(preset.embedder)
    if preset.unread:
        yield "note", "unread", f"from memory, not from a source: {', '.join(preset.unread)}"
    try:
        folder = find(preset.base, world).path
    except ModelNotFound:
        yield "note", "files", "not pulled: tokenizer and config were not checked"
        return
    yield from _of_files(folder, spec.longest)
    if preset.embedder:
        yield _width(folder, preset.embedder)


def _of_embedder(spec: EmbeddingSpec) -> Iterator[Line]:
    for what, prefix in (("questions", spec.query), ("passages", spec.passage)):
        text = f"{what} begin with {prefix!r}" if prefix else f"{what} have no prefix"
        yield "ok", "prefix", text
    cut = f", or {spec.shortest} and more" if spec.shortest else ""
    yield "ok", "vectors", f"{spec.dimensions} numbers{cut}, {spec.pooling} pooling"


def _of_files(folder: Path, longest: int) -> Iterator[Line]:
    if (folder / "tokenizer.json").is_file():
        yield "ok", "tokenizer", "tokenizer.json"
    else:
        yield "problem", "tokenizer", "there is no tokenizer.json"
    own = own_context(read_json(folder / "config.json"))
    # RoBERTa has two positions more than it reads tokens.
    level: Literal["ok", "problem"] = "problem" if own and longest > own else "ok"
    yield level, "longest text", f"{longest:,} tokens of {own:,} positions"


def _width(folder: Path, spec: EmbeddingSpec) -> Line:
    config: dict[str, Any] = read_json(folder / "config.json")
    own = int(config.get("hidden_size") or config.get("n_embd") or 0)
    if spec.dense or own == spec.dimensions:
        return "ok", "width", f"{own} numbers a token"
    return "problem", "width", f"{own} numbers a token; the preset has {spec.dimensions}"
