"""The forward pass of the Llama family in C (step.c), on row-wise int8 weights and a CPU.

Activations are rounded to 8 bits in groups of 32, so that an outlier costs precision in its own group alone. The numbers of a token do not
depend, to the bit, on what is read in the same call.
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
from llmchat.engines.transformers.compiled.sampler import CompiledSampler
from llmchat.engines.transformers.compiled.structs import (
    LANES,
    LINEARS,
    SPAN,
    Layer,
    Lora,
    Matrix,
    Model,
    SequenceRows,
    TensorRefs,
    addresses,
)
from llmchat.engines.transformers.executor import Forward, SequenceInput
from llmchat.engines.transformers.families.llama import check_tensors
from llmchat.engines.transformers.live_lora import LiveAdapter
from llmchat.engines.transformers.pytorch import forward
from llmchat.engines.transformers.pytorch.kv_cache import KVCache
from llmchat.engines.transformers.pytorch.linear import finite, quantise_rows
from llmchat.engines.transformers.tied_heads import is_tied
from llmchat.engines.transformers.weights import Tensors

# Query heads that may share one head of keys (step.c: QUERIES), and the largest head.
_MOST_SHARED, _MOST_DIM = 48, 256


def supports(config: dict[str, Any]) -> bool:
    """Whether step.c computes exactly what the architecture says."""
    heads, dim = _heads(config), _head_dim(config)
    fits = (
        heads[0] % heads[1] == 0
        and heads[0] // heads[1] <= _MOST_SHARED
        and dim % 16 == 0
        and dim <= _MOST_DIM
    )
    return forward.supports(config) and fits


class CompiledCache(KVCache):
    """Keys and values in the order in which step.c takes them (attention.h), with the addresses of their buffers, a layer each."""

    # Memory is taken when it is written to: room for a long text costs nothing, and to grow is to copy.
    FIRST = 2048
    BLOCK = SPAN

    def __init__(self, layers: int, heads: int, head_dim: int):
        super().__init__(layers, heads, head_dim, torch.bfloat16, torch.device("cpu"))
        self.shape = (layers, heads, head_dim)
        self.capacity = 0

    def reserve(self, length: int) -> None:
        super().reserve(length)
        if self._capacity != self.capacity:
            self.capacity = self._capacity
            self.keys, self.values = addresses(self._keys), addresses(self._values)

    def _read(self, side: str, part: Tensor, count: int) -> Tensor:
        whole = part[:, : self.BLOCK * self._blocks(count)]
        return self._folded(side, whole).reshape(whole.shape)[:, :count]

    def _write(self, side: str, part: Tensor, plain: Tensor) -> None:
        heads, count, dim = plain.shape
        whole = torch.zeros(heads, self.BLOCK * self._blocks(count), dim, dtype=plain.dtype)
        whole[:, :count] = plain
        view = self._folded(side, part[:, : whole.shape[1]])
        view.copy_(whole.view(view.shape))

    def _folded(self, side: str, part: Tensor) -> Tensor:
        """A view of [heads, positions, head_dim] in the order of attention.h, with its dimensions in the usual order."""
        blocks, dim = part.shape[1] // SPAN, part.shape[2]
        if side == "keys":
            shape, order = (SPAN // LANES, dim // 2, LANES, 2), (0, 1, 2, 4, 3, 5)
        else:
            shape, order = (dim // LANES, SPAN // 2, LANES, 2), (0, 1, 3, 5, 2, 4)
        return part.unflatten(1, (blocks, SPAN)).flatten(2).unflatten(2, shape).permute(order)


class CompiledForward(Forward):
    """A loaded model: token ids in, float32 logits out."""

    batches = True
    exact = True
    dtype = torch.bfloat16

    def __init__(self, config: dict[str, Any], tensors: Tensors, kernels: Kernels):
        self.config = config
        self._kernels = kernels
        # The C code believes these numbers: all that it is handed has shapes made from them, see TensorRefs.
        self._dimensions = size = check_tensors(config, tensors.shapes)
        self._shape = (size.layers, size.kv_heads, size.head_dim)
        self._vocabulary = size.vocabulary
        self._refs = TensorRefs()
        self._layers = (Layer * size.layers)(
            *(self._layer(tensors, index) for index in range(size.layers))
        )
        self._model = Model(
            *(
                size.layers,
                size.hidden,
                size.heads,
                size.kv_heads,
                size.head_dim,
                size.inner,
                size.vocabulary,
            ),
            self._plain(
                tensors, "model.embed_tokens.weight", torch.bfloat16, (size.vocabulary, size.hidden)
            ),
            self._refs.pointer(
                forward.inverse_frequencies(config, size.head_dim),
                torch.float32,
                (size.head_dim // 2,),
            ),
            self._plain(tensors, "model.norm.weight", torch.float32, (size.hidden,)),
            self._layers,
            self._head(tensors),
            config.get("rms_norm_eps", 1e-6),
        )
        self._loras: WeakKeyDictionary[LiveAdapter, tuple[TensorRefs, ctypes.Array[Lora]]] = (
            WeakKeyDictionary()
        )

    def new_cache(self) -> CompiledCache:
        return CompiledCache(*self._shape)

    def sampler(
        self, sampling: Sampling, prompt_ids: list[int], device: torch.device
    ) -> CompiledSampler:
        """A sampler that chooses where the logits are."""
        return CompiledSampler(sampling, prompt_ids, device, self._kernels)

    def run(self, sequences: Sequence[SequenceInput]) -> list[Tensor]:
        """Read more tokens of several texts at once, each behind its cache. Returns logits for each: [1, vocab], or [T, vocab] with `all_logits`."""
        kept: list[Any] = []
        if len({id(sequence.cache) for sequence in sequences}) < len(sequences):
            raise ValueError("a cache cannot be read into twice at once")
        texts = (SequenceRows * len(sequences))(
            *(self._text(sequence, kept) for sequence in sequences)
        )
        counts = [len(sequence.ids) if sequence.all_logits else 1 for sequence in sequences]
        logits = torch.empty(sum(counts), self._vocabulary)
        self._kernels.step(self._model, texts, logits)
        for sequence in sequences:
            sequence.cache.advance(len(sequence.ids))
        return list(logits.split(counts))

    def _text(self, sequence: SequenceInput, kept: list[Any]) -> SequenceRows:
        """kept: takes what must live until the step is done."""
        cache, count = sequence.cache, len(sequence.ids)
        if not count or not 0 <= min(sequence.ids) <= max(sequence.ids) < self._vocabulary:
            raise ValueError("no token, or one beyond the vocabulary")
        if not isinstance(cache, CompiledCache) or cache.shape != self._shape:
            raise ValueError("a cache of another model")
        cache.reserve(cache.length + count)
        ids = (c_int32 * count)(*sequence.ids)
        loras = (c_void_p * len(sequence.adapters))(
            *(ctypes.addressof(self._lora(adapter)) for adapter, _ in sequence.adapters)
        )
        strengths = (c_float * len(sequence.adapters))(
            *(strength for _, strength in sequence.adapters)
        )
        kept += [ids, loras, strengths]
        pointers = [
            ctypes.addressof(array) for array in (ids, cache.keys, cache.values, loras, strengths)
        ]
        return SequenceRows(
            *pointers,
            count,
            cache.length,
            cache.capacity,
            len(sequence.adapters),
            sequence.all_logits,
        )

    def _lora(self, adapter: LiveAdapter) -> "ctypes.Array[Lora]":
        """An adapter's matrices for every linear, the head last, in the form that step.c takes; made once."""
        if adapter not in self._loras:
            kept = TensorRefs()
            linears = self._dimensions.linears()
            names = {
                f"model.layers.{layer}.{name}": linears[name]
                for layer in range(self._shape[0])
                for name in LINEARS
            }
            names["lm_head"] = (self._vocabulary, self._dimensions.hidden)
            found = [
                kept.lora(*adapter.modules[name], shape) if name in adapter.modules else Lora()
                for name, shape in names.items()
            ]
            self._loras[adapter] = kept, (Lora * len(found))(*found)
        return self._loras[adapter][1]

    def _layer(self, tensors: Tensors, index: int) -> Layer:
        prefix, hidden = f"model.layers.{index}.", self._dimensions.hidden
        norms = (
            self._plain(tensors, f"{prefix}{name}_layernorm.weight", torch.float32, (hidden,))
            for name in ("input", "post_attention")
        )
        shapes = self._dimensions.linears()
        linears = [self._linear(tensors, f"{prefix}{name}", shapes[name]) for name in LINEARS]
        return Layer(*norms, (Matrix * len(LINEARS))(*linears))

    def _linear(self, tensors: Tensors, name: str, shape: tuple[int, int]) -> Matrix:
        weight, scb = tensors.int8(f"{name}.weight") or quantise_rows(
            tensors.get(f"{name}.weight"), f"{name}.weight"
        )
        bias = tensors.get(f"{name}.bias") if f"{name}.bias" in tensors.shapes else None
        return self._refs.matrix(weight, scb, bias, shape=shape, name=name)

    def _head(self, tensors: Tensors) -> Matrix:
        """The output head in 8 bits, which halves the largest matrix of a small model."""
        prepared = tensors.head_int8()
        if prepared is None:
            tied = is_tied(self.config, tensors.shapes)
            name = "model.embed_tokens.weight" if tied else "lm_head.weight"
            prepared = quantise_rows(tensors.get(name), name)
        return self._refs.matrix(
            *prepared, shape=(self._vocabulary, self._dimensions.hidden), name="lm_head"
        )

    def _plain(
        self, tensors: Tensors, name: str, dtype: torch.dtype, shape: tuple[int, ...]
    ) -> int:
        tensor = tensors.get(name)
        if dtype == torch.float32 or tensor.dtype != dtype:
            # What is mapped as it lies is not read for this: an embedding may be gigabytes, and a bad row shows in the logits.
            tensor = finite(tensor.to(dtype), name)
        return self._refs.pointer(tensor.contiguous(), dtype, shape, name)


def _heads(config: dict[str, Any]) -> tuple[int, int]:
    heads: int = config["num_attention_heads"]
    return heads, config.get("num_key_value_heads") or heads


def _head_dim(config: dict[str, Any]) -> int:
    dim: int = config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]
    return dim
