"""Runs every other causal architecture that transformers supports, with transformers' own modules
(hf_modules.py) and a cache that suits it."""

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from llmchat.engines.transformers.executor import Forward, SequenceInput
from llmchat.engines.transformers.live_lora import Switch, adaptable
from llmchat.engines.transformers.modules.hf_modules import build
from llmchat.engines.transformers.modules.rope_scaling import RopeScaling, rope_scaling_of
from llmchat.engines.transformers.modules.state_copies import Copies, can_be_cut, keeping_all
from llmchat.engines.transformers.pytorch import cuda
from llmchat.engines.transformers.pytorch.linear import compute_dtype
from llmchat.engines.transformers.tensors import Tensors
from llmchat.settings.types import Weights

# Kinds of layers whose keys and values can all be kept: a mask selects those that count.
_ATTENTION = {"full_attention", "sliding_attention", "chunked_attention"}
# Kinds whose cache layers keep more than that and can be truncated too (DeepSeek V3.2's indexer).
_INDEXED = {"indexed_attention"}
# Recurrent models that continue from their state with several tokens at once. The scan of others
# (Mamba, Falcon-Mamba, Jamba, Zamba, MiniMax) starts from an empty state for more than one token.
_CONTINUING = frozenset({
    "bamba", "deepseek_v4", "falcon_h1", "granitemoehybrid", "lfm2", "lfm2_moe", "lfm3", "mamba2",
    "nemotron_h", "olmo_hybrid", "qwen3_5_moe_text", "qwen3_5_text", "qwen3_next", "rwkv", "zamba2",
})  # fmt: skip
# The names of the cache in the arguments and results of models.
_CACHE_NAMES = ("past_key_values", "cache_params", "state")


class ModulesForward(Forward):
    """A transformers model as an executor. Texts are read one after the other.

    steps: after its first read, a text is read token by token.
    """

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
        self._model = build(
            folder, config, tensors, kind, place, trust_remote_code, switch=self._switch
        )
        if config.get("model_type") == "rwkv":
            # Halving the activations every few layers prevents overflows of fp16. bf16 does not
            # need it, and quantised weights cannot be halved.
            self._model.config.rescale_every = 0
        self.names = _Names.of(self._model)
        self.adaptable = adaptable(self._model)
        self.has_state = _has_state(self._model)
        self.steps = self.has_state and self._model.config.model_type not in _CONTINUING
        if device_map is not None:
            self._spread(device_map)
        self.rope_scaling = rope_scaling_of(config)

    @property
    def reads_at_once(self) -> bool:
        return self.steps or self.rope_scaling.dynamic

    def new_cache(self) -> "ModulesCache":
        return ModulesCache(self, self._model, self._device)

    def run(self, sequences: Sequence[SequenceInput]) -> list[Tensor]:
        logits = []
        for sequence in sequences:
            self._switch.active = sequence.adapters
            logits.append(sequence.cache.read(sequence.ids, sequence.all_logits))
        return logits

    def _spread(self, device_map: str) -> None:
        """Spread the layers over several GPUs. One works at a time: more memory, not more speed."""
        from accelerate import dispatch_model, infer_auto_device_map
        from accelerate.utils import get_balanced_memory

        cuda.take_over(self._model)
        unsplit = list(getattr(self._model, "_no_split_modules", None) or [])
        memory = (
            get_balanced_memory(self._model, no_split_module_classes=unsplit)
            if device_map == "balanced"
            else None
        )
        self._model = dispatch_model(
            self._model, infer_auto_device_map(self._model, memory, no_split_module_classes=unsplit)
        )
        self._device = next(self._model.parameters()).device


class ModulesCache:
    """A cache of transformers with the tokens in it, and copies of earlier recurrent states."""

    def __init__(self, forward: ModulesForward, model: Any, device: torch.device):
        self._forward = forward
        self._model = model
        self._device = device
        self._ids: list[int] = []
        self._cache: Any = None
        self._copies = Copies()
        # Where the previous text and this one part: the next one is likely to part there too.
        self._parting = 0
        # Tokens of the text when all of its keys were turned; see rope.py.
        self._rotated_at = 0
        self._begins = True

    @property
    def length(self) -> int:
        return len(self._ids)

    def read(self, ids: list[int], all_logits: bool) -> Tensor:
        begins, self._begins, wanted = self._begins, False, len(ids)
        if self._ids and (
            self._rope_scaling.must_reread(
                len(self._ids), len(self._ids) + wanted, self._rotated_at, begins
            )
            or self._is_slower(wanted)
        ):
            ids = self._ids + ids
            self._forget()
        if not self._ids:
            self._rotated_at = len(ids)
        logits = [self._step(piece, all_logits) for piece in self._pieces(ids, all_logits)]
        return torch.cat(logits)[-wanted:] if all_logits else logits[-1]

    def truncate(self, length: int) -> int:
        """Forget all but the first `length` tokens; returns how many are kept.

        A recurrent model goes back to its last copy before that point.
        """
        self._begins = True
        held = len(self._ids)
        if held <= length:
            return held
        if self._cache is None or self._rope_scaling.is_crossed(length, held):
            self._forget()
        elif can_be_cut(self._cache):
            self._cache.crop(length - held)
            del self._ids[length:]
        else:
            kept, self._cache = self._copies.back(self._cache, held, length)
            del self._ids[kept:]
            self._parting = length
        return len(self._ids)

    @property
    def _rope_scaling(self) -> RopeScaling:
        return self._forward.rope_scaling

    def _pieces(self, ids: list[int], all_logits: bool) -> list[list[int]]:
        """The pieces that are read in one call each.

        A prompt of a recurrent model is cut where its state is copied: before its last token, and
        where the previous text parted from it.
        """
        if all_logits or len(ids) == 1 or not self._forward.has_state:
            return [ids]
        cuts = {len(ids) - 1, 0 if self._forward.steps else self._parting - len(self._ids)}
        borders = [0, *sorted(cut for cut in cuts if 0 < cut < len(ids)), len(ids)]
        return [ids[start:end] for start, end in pairwise(borders)]

    def _is_slower(self, count: int) -> bool:
        """Whether reading these token by token takes longer than the whole text at once."""
        return self._forward.steps and count > 32 + len(self._ids) // 8

    def _step(self, ids: list[int], all_logits: bool) -> Tensor:
        if self._forward.steps and self._ids and len(ids) > 1:
            return torch.cat([self._step([token], all_logits) for token in ids])[
                slice(None) if all_logits else slice(-1, None)
            ]
        if self._ids and len(ids) > 1 and not all_logits:
            self._keep_copy()
        try:
            out = self._pass(ids, all_logits)
        except BaseException:
            # Interrupted between two layers, the cache holds these tokens in some of them only.
            self._forget()
            raise
        self._cache = getattr(out, self._forward.names.cache, self._cache)
        self._ids += ids
        if len(ids) > 1 and not all_logits:
            self._keep_copy()
        logits: Tensor = out.logits[0]
        return logits if all_logits else logits[-1:]

    def _pass(self, ids: list[int], all_logits: bool) -> Any:
        if self._cache is None:
            self._cache = _new_cache(self._model)
        self._rope_scaling.prepare(self._model)
        more: dict[str, Any] = (
            {} if self._cache is None else {self._forward.names.cache: self._cache}
        )
        if self._forward.names.positions:
            # Otherwise some models ask the first layer of their cache, which may not know (Bamba).
            start = len(self._ids)
            more["position_ids"] = torch.arange(start, start + len(ids), device=self._device)[None]
        return self._model(
            input_ids=torch.tensor([ids], device=self._device),
            use_cache=True,
            logits_to_keep=0 if all_logits else 1,  # 0: of every token
            **more,
        )

    def _keep_copy(self) -> None:
        if self._forward.has_state:
            self._copies.keep(len(self._ids), self._cache)

    def _forget(self) -> None:
        self._cache, self._ids = None, []
        self._copies.clear()


def _new_cache(model: Any) -> Any:
    """A cache that can be truncated; None if the model makes its own kind of cache."""
    from transformers import DynamicCache

    if not _takes_dynamic_cache(model):
        return None
    plain = _kinds(model) <= _ATTENTION and not _has_state(model)
    return DynamicCache() if plain else keeping_all(DynamicCache(config=model.config))


def _has_state(model: Any) -> bool:
    """Whether some layers keep something other than keys and values."""
    return (
        not _kinds(model) <= _ATTENTION | _INDEXED
        or bool(getattr(model, "_is_stateful", False))
        or not _takes_dynamic_cache(model)
    )


def _kinds(model: Any) -> set[str]:
    return set(getattr(model.config, "layer_types", None) or ())


def _takes_dynamic_cache(model: Any) -> bool:
    return bool(getattr(model, "_supports_default_dynamic_cache", lambda: True)())


@dataclass(frozen=True)
class _Names:
    """cache: the name of a model's cache argument; positions: whether it accepts position ids."""

    cache: str
    positions: bool

    @classmethod
    def of(cls, model: Any) -> "_Names":
        parameters = inspect.signature(model.forward).parameters
        return cls(
            next((name for name in _CACHE_NAMES if name in parameters), _CACHE_NAMES[0]),
            "position_ids" in parameters,
        )
