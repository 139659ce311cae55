"""The forward pass of the Llama family in C (csrc/step.c), on row-wise int8 weights and a CPU.

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
from llmchat.engines.transformers.compiled.kernels import Kernels
from llmchat.engines.transformers.compiled.kv_cache import CompiledCache
from llmchat.engines.transformers.compiled.sampler import CompiledSampler
from llmchat.engines.transformers.compiled.structs import (
    LANES,
    MAX_HEAD_DIM,
    MAX_SHARED_HEADS,
    Layer,
    Lora,
    Matrix,
    Model,
    SequenceRows,
    TensorRefs,
)
from llmchat.engines.transformers.dry import Dry
from llmchat.engines.transformers.executor import Forward, SequenceInput
from llmchat.engines.transformers.families import old_llama as llama
from llmchat.engines.transformers.families.cache_shapes import KeyValues
from llmchat.engines.transformers.live_lora import LiveAdapter
from llmchat.engines.transformers.pytorch.int8 import finite, quantise_rows
from llmchat.engines.transformers.tied_heads import HEAD
from llmchat.engines.transformers.weights import Tensors


def supports(config: dict[str, Any]) -> bool:
    """Whether step.c computes exactly what the config describes."""
    if not llama.supports(config):
        return False
    size = llama.Dimensions.of(config)
    has_vectors = size.head_dim % LANES == 0 and size.head_dim <= MAX_HEAD_DIM
    return has_vectors and size.heads // size.kv_heads <= MAX_SHARED_HEADS


class CompiledForward(Forward):
    """A loaded model: token ids in, float32 logits out."""

    batches = True
    exact = True
    dtype = torch.bfloat16

    def __init__(self, config: dict[str, Any], tensors: Tensors, kernels: Kernels):
        self.config = config
        self._kernels = kernels
        self._plan = llama.plan(config, tensors.shapes)
        self._size = size = self._plan.size
        self._cache_shape = (KeyValues(size.kv_heads, size.head_dim, size.head_dim),) * size.layers
        self._refs = TensorRefs()
        self._adapters: WeakKeyDictionary[LiveAdapter, _Adapter] = WeakKeyDictionary()
        load = _Loader(tensors, self._plan, self._refs)
        self._layers = (Layer * size.layers)(*map(load.layer, range(size.layers)))
        self._model = Model(
            *size, load.embedding(), load.frequencies(), load.norm(llama.NORM), self._layers,
            load.head(), self._plan.epsilon,
        )  # fmt: skip

    def new_cache(self) -> CompiledCache:
        return CompiledCache(self._cache_shape)

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
        if len({id(sequence.cache) for sequence in sequences}) < len(sequences):
            raise ValueError("one cache in two sequences of a pass")
        alive: list[Any] = []
        rows = (SequenceRows * len(sequences))(
            *(self._rows(sequence, alive) for sequence in sequences)
        )
        counts = [len(sequence.ids) if sequence.all_logits else 1 for sequence in sequences]
        logits = torch.empty(sum(counts), self._size.vocabulary)
        self._kernels.step(self._model, rows, logits)
        for sequence in sequences:
            sequence.cache.advance(sequence.ids)
        return list(logits.split(counts))

    def _rows(self, sequence: SequenceInput, alive: list[Any]) -> SequenceRows:
        """alive: receives the arrays that must live until the pass is done."""
        cache, ids, adapters = sequence.cache, sequence.ids, sequence.adapters
        if not ids or not 0 <= min(ids) <= max(ids) < self._size.vocabulary:
            raise ValueError("no token, or one beyond the vocabulary")
        if not isinstance(cache, CompiledCache) or cache.shape != self._cache_shape:
            raise ValueError("a cache of another model")
        cache.reserve(cache.length + len(ids))
        arrays: tuple[ctypes.Array[Any], ...] = (
            (c_int32 * len(ids))(*ids),
            cache.keys,
            cache.values,
            (c_void_p * len(adapters))(*(self._adapter(one).address for one, _ in adapters)),
            (c_float * len(adapters))(*(strength for _, strength in adapters)),
        )
        alive.append(arrays)
        numbers = len(ids), cache.length, cache.capacity, len(adapters), sequence.all_logits
        return SequenceRows(*(ctypes.addressof(array) for array in arrays), *numbers)

    def _adapter(self, adapter: LiveAdapter) -> "_Adapter":
        if adapter not in self._adapters:
            self._adapters[adapter] = _Adapter(adapter, self._size)
        return self._adapters[adapter]


class _Adapter:
    """A live adapter's matrices for every linear, the head last, in the layout of model.h."""

    def __init__(self, adapter: LiveAdapter, size: llama.Dimensions):
        self._refs = TensorRefs()
        shapes = {
            f"{llama.layer_prefix(layer)}{name}": shape
            for layer in range(size.layers)
            for name, shape in size.linears().items()
        }
        shapes["lm_head"] = (size.vocabulary, size.hidden)
        matrices = [
            self._refs.lora(*adapter.modules[name], shape) if name in adapter.modules else Lora()
            for name, shape in shapes.items()
        ]
        self._array = (Lora * len(matrices))(*matrices)
        self.address = ctypes.addressof(self._array)


class _Loader:
    """Makes the structures of model.h of a checkpoint's tensors, which `refs` keeps alive."""

    def __init__(self, tensors: Tensors, plan: llama.LlamaPlan, refs: TensorRefs):
        self._tensors, self._plan, self._refs = tensors, plan, refs

    def layer(self, index: int) -> Layer:
        prefix = llama.layer_prefix(index)
        norms = (self.norm(f"{prefix}{name}") for name in (llama.ATTENTION_NORM, llama.MLP_NORM))
        shapes = self._plan.size.linears()
        linears = [self._linear(f"{prefix}{name}", shape) for name, shape in shapes.items()]
        return Layer(*norms, (Matrix * len(linears))(*linears))

    def embedding(self) -> int:
        """bfloat16. A mapped one of that type is not checked for NaN: that would read gigabytes.

        An invalid row makes its logits NaN.
        """
        embedding = self._tensors.get(llama.EMBEDDING)
        if embedding.dtype != torch.bfloat16:
            embedding = finite(embedding.to(torch.bfloat16), llama.EMBEDDING)
        shape = self._plan.size.vocabulary, self._plan.size.hidden
        return self._refs.pointer(embedding.contiguous(), torch.bfloat16, shape, llama.EMBEDDING)

    def frequencies(self) -> int:
        shape = (self._plan.size.head_dim // 2,)
        return self._refs.pointer(self._plan.frequencies, torch.float32, shape)

    def norm(self, name: str) -> int:
        weight = finite(self._tensors.get(name).float(), name).contiguous()
        return self._refs.pointer(weight, torch.float32, (self._plan.size.hidden,), name)

    def head(self) -> Matrix:
        """The output head in 8 bits, which halves the largest matrix of a small model."""
        pair = self._tensors.head_int8()
        if pair is None:
            name = llama.EMBEDDING if self._plan.has_tied_head else HEAD
            pair = quantise_rows(self._tensors.get(name), name)
        shape = self._plan.size.vocabulary, self._plan.size.hidden
        return self._refs.matrix(*pair, shape=shape, name="lm_head")

    def _linear(self, name: str, shape: tuple[int, int]) -> Matrix:
        tensors, weight, bias = self._tensors, f"{name}.weight", f"{name}.bias"
        pair = tensors.int8(weight) or quantise_rows(tensors.get(weight), weight)
        shift = tensors.get(bias) if bias in tensors.shapes else None
        return self._refs.matrix(*pair, shift, shape=shape, name=name)
