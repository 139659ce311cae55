"""Builds the ModelSpec of a preset: its key, its estimated size, and how to load it."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from llmchat import memory_estimate
from llmchat.engines import Engine
from llmchat.hub import inspect_folder
from llmchat.models.drafting import draft_of
from llmchat.models.embedding import embedding_spec, is_bare_embedder
from llmchat.models.loading import load
from llmchat.models.locate import Model, find_checkpoint, locate, provenance, title
from llmchat.models.weight_names import weights_in_use
from llmchat.presets import Preset
from llmchat.server.loaded_model import ModelSpec
from llmchat.settings import Options, World

# For the estimate of the KV cache: one answer fills the context window, others take this much.
_TOKENS_A_SLOT = 1024
_DEFAULT_CONTEXT = 2048


class SpecBuilder:
    """Remembers the keys it has used, so that different models get different ones."""

    def __init__(self, world: World, slots: int):
        self._world = world
        self._slots = slots
        self._keys: dict[str, Mapping[str, Any]] = {}

    def build(self, preset: Preset, options: Options) -> ModelSpec:
        """Raises ModelNotFound if the model is not pulled."""
        if preset.kind != "chat" or is_bare_embedder(preset, self._world):
            return self._answers_nothing(preset, options)
        model = locate(preset, self._world)
        draft = draft_of(model)
        made_by = provenance(model)
        # One engine serves all prompt formats, so the format is not part of the key.
        loaded = {
            **made_by,
            "format": "",
            "device": options.device,
            "code": options.trust_remote_code,
            "draft": preset.draft,
        }
        return ModelSpec(
            self._key(_label(model.preset, made_by["weights"]), loaded),
            model.preset,
            lambda: load(model, options),
            self._size(model) + (self._size(draft) if draft else 0),
            (),
            made_by=made_by,
            context=_context(model),
        )

    def _answers_nothing(self, preset: Preset, options: Options) -> ModelSpec:
        """The spec of an embedder or a reranker."""
        folder = find_checkpoint(preset.base, preset, self._world).path
        loaded = {"folder": str(folder), "device": options.device}
        size = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
        key = self._key(f"{preset.name} fp32", loaded)
        return ModelSpec(key, preset, lambda: _open(preset, folder, options.device), size)

    def _key(self, label: str, loaded: Mapping[str, Any]) -> str:
        """The name in `llmchat ps`: the label, with a hash if another model already has it."""
        if self._keys.setdefault(label, loaded) != loaded:
            digest = hashlib.sha256(repr(sorted(loaded.items())).encode()).hexdigest()
            label = f"{label} #{digest[:6]}"
            self._keys[label] = loaded
        return label

    def _size(self, model: Model) -> int:
        """The estimated bytes of the weights and of the KV caches of all slots."""
        if model.base is None:
            return 0
        inspection = inspect_folder(model.base)
        window = model.preset.context.tokens or _own_context(inspection.config)
        tokens = window + (self._slots - 1) * min(_TOKENS_A_SLOT, window)
        kind, config = model.preset.weights, inspection.config
        own = weights_in_use(model.preset, model.base) != kind
        stored = inspection.quantised.stored if own else {}
        weights = memory_estimate.weights(inspection.shapes, kind, config, stored)
        return weights + memory_estimate.kv_bytes(config, tokens, model.preset.kv)


def _label(preset: Preset, weights: str) -> str:
    cached = "" if preset.kv == "full" else f" kv {preset.kv}"
    return f"{title(preset)} {weights or preset.weights}{cached}"


def _open(preset: Preset, folder: Path, device: str) -> Engine:
    from llmchat.engines.transformers.embedding.engine import EmbeddingEngine, RerankEngine

    if preset.reranker:
        return RerankEngine(folder, preset.reranker, preset.name)
    return EmbeddingEngine(folder, embedding_spec(preset, folder), device, preset.name)


def _context(model: Model) -> int:
    """The tokens of the context window; 0 if unknown before the model is loaded."""
    return _own_context(inspect_folder(model.base).config) if model.base else 0


def _own_context(config: Mapping[str, Any]) -> int:
    return memory_estimate.own_context(config) or _DEFAULT_CONTEXT
