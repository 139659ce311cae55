"""The forward pass of a plan in C (csrc/step.c), on row-wise int8 weights and a CPU.

Activations are quantised to 8 bits in groups of 32, so that an outlier costs precision in its own
group alone. The logits of a token do not depend, to the bit, on what else is in the pass.
"""

import ctypes
from collections.abc import Sequence
from ctypes import c_float, c_int32, c_void_p
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from llmchat.engines import Sampling
from llmchat.engines.transformers import rereading
from llmchat.engines.transformers.compiled import blocks
from llmchat.engines.transformers.compiled.kernels import Kernels
from llmchat.engines.transformers.compiled.kv_cache import CompiledCache
from llmchat.engines.transformers.compiled.sampler import CompiledSampler
from llmchat.engines.transformers.compiled.structs import (
    Lora,
    SequenceRows,
    TensorRefs,
    check_shape,
)
from llmchat.engines.transformers.dry import Dry
from llmchat.engines.transformers.executor import Forward, SequenceInput
from llmchat.engines.transformers.families import plan_of, viewed
from llmchat.engines.transformers.families.blocks import Linear
from llmchat.engines.transformers.families.cache_shapes import cache_shapes
from llmchat.engines.transformers.families.check import bind
from llmchat.engines.transformers.families.plan import Plan
from llmchat.engines.transformers.live_lora import LiveAdapter
from llmchat.engines.transformers.tensors import Tensors
from llmchat.settings.types import KvKind


def supports(config: dict[str, Any]) -> bool:
    """Whether the model has a plan, and step.c computes exactly what the plan describes."""
    plan = plan_of(config)
    return plan is not None and blocks.supports(plan)


class CompiledForward(Forward):
    """A loaded model: token ids in, float32 logits out."""

    batches = True
    exact = True
    dtype = torch.bfloat16

    def __init__(
        self,
        config: dict[str, Any],
        tensors: Tensors,
        kernels: Kernels,
        kv: KvKind = "full",
    ):
        plan = plan_of(config)
        assert plan is not None, "see supports"
        self.config = config
        tensors = viewed(config, tensors)
        self._plan = plan = bind(plan, tensors.shapes)
        self.adaptable = frozenset(linear.module for linear in blocks.adapter_linears(plan))
        self._kernels, self._kv = kernels, kv
        self._refs = TensorRefs()
        self._adapters: WeakKeyDictionary[LiveAdapter, _Adapter] = WeakKeyDictionary()
        self._model = blocks.BlockLoader(plan, tensors, self._refs).model()
        self._cache_shapes = tuple(cache_shapes(plan))
        self._known_shapes: Sequence[object] = (self._cache_shapes,)
        self._trained = plan.trained
        self.whole_context = plan.answer_start is not None

    def new_cache(self) -> CompiledCache:
        start = self._plan.answer_start
        return CompiledCache(self._cache_shapes, self._trained, self._kv, start)

    def sampler(
        self,
        sampling: Sampling,
        prompt_ids: list[int],
        device: torch.device,
        dry: Dry | None = None,
    ) -> CompiledSampler:
        return CompiledSampler(sampling, prompt_ids, device, self._kernels, dry)

    def run(self, sequences: Sequence[SequenceInput]) -> list[Tensor]:
        """As in Forward. Raises ValueError for input that the C code must not see."""
        self._check_caches(sequences)
        return rereading.run(self._read, sequences)

    def _check_caches(self, sequences: Sequence[SequenceInput]) -> None:
        if len({id(sequence.cache) for sequence in sequences}) < len(sequences):
            raise ValueError("one cache in two sequences of a pass")

    def _read(self, sequences: Sequence[SequenceInput]) -> list[Tensor]:
        counts = [len(sequence.ids) if sequence.all_logits else 1 for sequence in sequences]
        logits = torch.empty(sum(counts), self._plan.vocabulary)
        self._step(sequences, logits)
        return list(logits.split(counts))

    def _step(
        self, sequences: Sequence[SequenceInput], logits: Tensor, encodes: bool = False
    ) -> None:
        """See Kernels.step; the caches count the tokens afterwards."""
        alive: list[Any] = []
        rows = (SequenceRows * len(sequences))(
            *(self._rows(sequence, alive) for sequence in sequences)
        )
        self._kernels.step(self._model, rows, logits, encodes)
        for sequence in sequences:
            sequence.cache.advance(sequence.ids)

    def _rows(self, sequence: SequenceInput, alive: list[Any]) -> SequenceRows:
        """alive: receives the arrays that must live until the pass is done."""
        cache, ids, adapters = sequence.cache, sequence.ids, sequence.adapters
        if not ids or not 0 <= min(ids) <= max(ids) < self._plan.vocabulary:
            raise ValueError("no token, or one beyond the vocabulary")
        if not isinstance(cache, CompiledCache) or cache.shape not in self._known_shapes:
            raise ValueError("a cache of another model")
        if self._plan.longest and cache.length + len(ids) > self._plan.longest:
            raise ValueError("more positions than the model has learned")
        cache.begin(ids)
        cache.reserve(cache.length + len(ids))
        arrays: tuple[ctypes.Array[Any], ...] = (
            (c_int32 * len(ids))(*ids),
            cache.keys,
            cache.values,
            cache.states,
            (c_void_p * len(adapters))(*(self._adapter(one).address for one, _ in adapters)),
            (c_float * len(adapters))(*(strength for _, strength in adapters)),
        )
        alive.append(arrays)
        numbers = (
            len(ids), cache.length, cache.capacity, len(adapters), sequence.all_logits,
            cache.is_long, cache.context, *_remembered(cache), cache.kind == "int8",
        )  # fmt: skip
        return SequenceRows(*(ctypes.addressof(array) for array in arrays), *numbers)

    def _adapter(self, adapter: LiveAdapter) -> "_Adapter":
        if adapter not in self._adapters:
            self._adapters[adapter] = _Adapter(adapter, self._plan)
        return self._adapters[adapter]


def _remembered(cache: CompiledCache) -> tuple[int, int]:
    """The positions that an encoder has read of a text, and those that there is room for."""
    return (cache.memory.length, cache.memory.capacity) if cache.memory else (0, 0)


class _Adapter:
    """A live adapter's matrices for every linear, the head last, in the layout of model.h."""

    def __init__(self, adapter: LiveAdapter, plan: Plan):
        self._refs = TensorRefs()
        matrices = [self._matrices(adapter, linear) for linear in blocks.adapter_linears(plan)]
        self._array = (Lora * len(matrices))(*matrices)
        self.address = ctypes.addressof(self._array)

    def _matrices(self, adapter: LiveAdapter, linear: Linear) -> Lora:
        if linear.module not in adapter.modules:
            return Lora()
        a, b, scale = adapter.modules[linear.module]
        check_shape("B of an adapter", b, (linear.shape[0], a.shape[0]))
        rows = b[linear.first : linear.first + linear.out]
        return self._refs.lora(a, rows, scale, (linear.out, linear.in_))
