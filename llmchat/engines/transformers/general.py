"""Every other causal architecture transformers knows, as a tree of its modules (tree.py) with one of its caches."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from llmchat.engines import Weights
from llmchat.engines.transformers import cuda
from llmchat.engines.transformers.forward import Part
from llmchat.engines.transformers.linear import compute_dtype
from llmchat.engines.transformers.live import Switch
from llmchat.engines.transformers.tree import build
from llmchat.engines.transformers.weights import Tensors

# Kinds of layers whose keys and values can all be kept, and a mask be left to say which of them count.
_ATTENTION = {"full_attention", "sliding_attention", "chunked_attention"}


class GeneralForward:
    """A transformers model behind the same calls as LlamaForward. Texts are read one after the other."""

    batches = False
    exact = False

    def __init__(
        self,
        folder: Path,
        config: dict[str, Any],
        tensors: Tensors,
        kind: Weights,
        device: torch.device,
        device_map: str | None = None,
        trust_remote_code: bool = False,
    ):
        self.dtype = compute_dtype(kind)
        self._device = device
        self._switch = Switch()
        place = device if device_map is None else torch.device("cpu")
        self._model = build(folder, config, tensors, kind, place, trust_remote_code, switch=self._switch)
        if device_map is not None:
            self._spread(device_map)
        self._turn = _turn_of(config)

    def new_cache(self) -> "GeneralCache":
        return GeneralCache(self._model, self._turn, self._device)

    def read(self, parts: Sequence[Part]) -> list[Tensor]:
        """Read more tokens of each text. Returns logits for each: [1, vocab] after its last token, or [T, vocab] with `every`."""
        logits = []
        for part in parts:
            self._switch.active = part.adapters
            logits.append(part.cache.read(part.ids, part.every))
        return logits

    def _spread(self, device_map: str) -> None:
        """Layers over several GPUs by accelerate: one GPU works at a time, which buys memory, not speed."""
        from accelerate import dispatch_model, infer_auto_device_map
        from accelerate.utils import get_balanced_memory

        cuda.take_over(self._model)
        unsplit = list(getattr(self._model, "_no_split_modules", None) or [])
        memory = get_balanced_memory(self._model, no_split_module_classes=unsplit) if device_map == "balanced" else None
        self._model = dispatch_model(self._model, infer_auto_device_map(self._model, memory, no_split_module_classes=unsplit))
        self._device = next(self._model.parameters()).device


class GeneralCache:
    """One of transformers' caches, and the tokens in it."""

    def __init__(self, model: Any, turn: int, device: torch.device):
        self._model = model
        self._turn = turn
        self._device = device
        self._ids: list[int] = []
        self._cache: Any = None

    @property
    def length(self) -> int:
        return len(self._ids)

    def read(self, ids: list[int], every: bool) -> Tensor:
        count = len(ids)
        if 0 < len(self._ids) <= self._turn < len(self._ids) + count:
            # From here on the rotary frequencies are others, for the tokens before as well (longrope).
            ids = self._ids + ids
            self._forget()
        if self._cache is None:
            self._cache = self._new_cache()
        try:
            out = self._model(
                input_ids=torch.tensor([ids], device=self._device),
                past_key_values=self._cache,
                use_cache=True,
                logits_to_keep=0 if every else 1,  # 0: of every token
            )
        except BaseException:
            # Interrupted between two layers, the cache holds these tokens in some of them only.
            self._forget()
            raise
        self._ids += ids
        return out.logits[0, -count if every else -1 :]  # type: ignore[no-any-return]

    def truncate(self, length: int) -> int:
        """Forget all but the first `length` tokens; returns how many are kept: none where the cache cannot be cut."""
        held = len(self._ids)
        if held <= length:
            return held
        try:
            if length <= self._turn < held:
                raise ValueError("the frequencies turn between")
            self._cache.crop(length - held)
        except (ValueError, NotImplementedError, AttributeError, RuntimeError):
            self._forget()
        del self._ids[length:]
        return len(self._ids)

    def _forget(self) -> None:
        self._cache, self._ids = None, []

    def _new_cache(self) -> Any:
        """A cache that can be cut: one that throws away what has left a sliding window could not, and each turn of a chat be read anew."""
        from transformers import DynamicCache

        kinds = set(getattr(self._model.config, "layer_types", None) or ())
        return DynamicCache() if kinds <= _ATTENTION else DynamicCache(config=self._model.config)


def _turn_of(config: dict[str, Any]) -> int:
    """Tokens after which a model takes other rotary frequencies (Phi-3's longrope); 0 where it never does."""
    scaling = config.get("rope_parameters") or config.get("rope_scaling") or {}
    if scaling.get("rope_type", scaling.get("type")) not in ("longrope", "su"):
        return 0
    return int(scaling.get("original_max_position_embeddings") or config.get("original_max_position_embeddings") or 0)
