"""Models like Llama on one GPU: a pass of few rows is one captured CUDA graph, replayed.

A graph has fixed addresses. So tokens, positions and the addresses of the caches are in tensors
that belong to the graph and are filled before each replay: one graph serves every text and every
length, and a cache may grow.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from llmchat.engines import Sampling
from llmchat.engines.transformers.dry import Dry
from llmchat.engines.transformers.executor import SequenceInput
from llmchat.engines.transformers.families.blocks import Attention
from llmchat.engines.transformers.families.plan import Plan
from llmchat.engines.transformers.live_lora import AdaptedLinear, LiveAdapters
from llmchat.engines.transformers.pytorch.attention import TorchAttention
from llmchat.engines.transformers.pytorch.cuda import launch
from llmchat.engines.transformers.pytorch.cuda.linear import fused
from llmchat.engines.transformers.pytorch.cuda.sampling import DeviceSampler
from llmchat.engines.transformers.pytorch.forward import TorchForward, TorchLayer
from llmchat.engines.transformers.pytorch.kv_cache import KVCache
from llmchat.engines.transformers.pytorch.mlp import TorchMlp
from llmchat.engines.transformers.pytorch.norms import TorchNorm
from llmchat.engines.transformers.pytorch.runners import RowsRunner
from llmchat.engines.transformers.pytorch.sampler import Sampler
from llmchat.engines.transformers.tensors import Tensors
from llmchat.settings.types import Weights

# One graph for each number of rows, and for each combination of live adapters.
_MOST_GRAPHS = 32


class CudaCache(KVCache):
    """addresses: int64 [layers, 2] on the device, of the keys and values of each block that has
    them.
    """

    addresses: Tensor

    def reserve(self, length: int) -> None:
        before = self.capacity
        super().reserve(length)
        if self.capacity != before:
            pairs = [
                (keys.data_ptr(), values.data_ptr())
                for keys, values in zip(self._keys, self._values, strict=True)
                if keys is not None and values is not None
            ]
            self.addresses = torch.tensor(pairs, device=self._device)


class _Step:
    """The inputs of a pass of `rows` rows, and its graph once it is captured.

    state: token, position and capacity of the cache of each row; buffers: addresses of the caches.
    """

    def __init__(self, rows: int, layers: int, device: torch.device):
        self.state = torch.zeros(rows, 3, dtype=torch.long, device=device)
        self.buffers = torch.zeros(rows, layers, 2, dtype=torch.long, device=device)
        self.logits: Tensor | None = None
        self.graph: Any = None
        self._filled: list[Tensor] = []

    def fill(self, rows: Sequence[tuple[int, int, CudaCache]]) -> None:
        """rows: token, position and cache of each.

        The host does not wait: small copies from it are taken over at once.
        """
        state = torch.tensor([(token, position, cache.capacity) for token, position, cache in rows])
        self.state.copy_(state, non_blocking=True)
        addresses = [cache.addresses for _, _, cache in rows]
        # By identity: comparing their numbers would wait for the device.
        if list(map(id, addresses)) != list(map(id, self._filled)):
            torch.stack(addresses, out=self.buffers)
            self._filled = addresses


@dataclass(frozen=True)
class _Ahead:
    """The logits of a step that was launched before it was requested.

    It reads the token at `position` of a cache, which the host does not know yet.
    """

    cache: KVCache
    position: int
    adapters: LiveAdapters
    logits: Tensor

    def is_for(self, sequence: SequenceInput) -> bool:
        """Whether these are the logits that running `sequence` would give."""
        return (
            self.cache is sequence.cache
            and self.position == sequence.cache.length
            and len(sequence.ids) == 1
            and self.adapters == sequence.adapters
        )


@dataclass(frozen=True)
class _Layer:
    """The weights of a layer, in the order in which they are used."""

    attention_norm: TorchNorm
    qkv: AdaptedLinear
    output: AdaptedLinear
    mlp_norm: TorchNorm
    gate_up: AdaptedLinear
    down: AdaptedLinear


class CudaForward(TorchForward):
    """TorchForward on one GPU, activations in bf16, for a plan that shapes.is_plain accepts. Long
    inputs take the usual path.
    """

    def __init__(self, plan: Plan, tensors: Tensors, kind: Weights, device: torch.device):
        super().__init__(plan, tensors, kind, device)
        attention = next(one for one in plan.blocks() if isinstance(one, Attention))
        assert attention.rotary is not None
        self._heads = attention.queries.count, attention.keys.count, attention.keys.width
        self._frequencies = attention.rotary.frequencies.to(device).contiguous()
        self._plain_layers = list(map(_plain_layer, self._layers))
        self._steps: dict[tuple[int, LiveAdapters], _Step] = {}
        self._captures = self._device.type == "cuda"
        self._pool: Any = None
        self._last: tuple[KVCache, LiveAdapters] | None = None
        self._ahead: _Ahead | None = None
        if self._captures:
            # Compiling the kernels takes seconds, once on a machine: now, while the user types.
            self.run([SequenceInput(self.new_cache(), [0])])

    def new_cache(self) -> KVCache:
        return CudaCache(self._cache_shapes, self.dtype, self._device)

    def sampler(
        self,
        sampling: Sampling,
        prompt_ids: list[int],
        device: torch.device,
        dry: Dry | None = None,
    ) -> Sampler:
        """A sampler whose tokens this executor runs at once, unless a guide or DRY reads them."""
        if dry or sampling.structure is not None or sampling.think_budget is not None:
            return Sampler(sampling, prompt_ids, device, dry)
        return DeviceSampler(sampling, prompt_ids, device, self.follow)

    def run(self, sequences: Sequence[SequenceInput]) -> list[Tensor]:
        ahead, self._ahead, self._last = self._ahead, None, None
        if len(sequences) != 1:
            return super().run(sequences)
        sequence = sequences[0]
        if ahead is not None and ahead.is_for(sequence):
            sequence.cache.advance(sequence.ids)
            logits = [ahead.logits]
        else:
            logits = super().run(sequences)
        if not sequence.all_logits:
            self._last = sequence.cache, sequence.adapters
        return logits

    def follow(self, token: Tensor) -> None:
        """Launch the step that reads `token`, int64 [1] on the device, after the last text run.

        `run` returns its logits when they are requested. The caller runs this token next for that
        text, or abandons the text.
        """
        if self._last is None:
            return
        cache, adapters = self._last
        assert isinstance(cache, CudaCache)
        with torch.inference_mode():
            cache.reserve(cache.length + 1)
            self._switch.active = adapters
            step = self._step(1)
            step.fill([(0, cache.length, cache)])
            step.state[0, :1] = token
            logits = self._execute(step).clone()
            self._ahead = _Ahead(cache, cache.length, adapters, logits)

    def _run_batch(self, sequences: list[SequenceInput]) -> list[Tensor]:
        counts = [len(sequence.ids) for sequence in sequences]
        if sum(counts) > launch.MOST_ROWS:
            return super()._run_batch(sequences)
        rows = []
        for cache, ids in ((sequence.cache, sequence.ids) for sequence in sequences):
            cache.reserve(cache.length + len(ids))
            rows += [(token, cache.length + index, cache) for index, token in enumerate(ids)]
        step = self._step(len(rows))
        step.fill(rows)
        logits = self._execute(step).split(counts)
        for sequence in sequences:
            sequence.cache.advance(sequence.ids)
        # Cloned, because the next replay overwrites the graph's logits.
        return [
            (own if sequence.all_logits else own[-1:]).clone()
            for sequence, own in zip(sequences, logits, strict=True)
        ]

    def _step(self, rows: int) -> _Step:
        key = rows, self._switch.active
        if key not in self._steps:
            if len(self._steps) == _MOST_GRAPHS:
                del self._steps[next(iter(self._steps))]
            self._steps[key] = _Step(rows, len(self._layers), self._device)
        return self._steps[key]

    def _execute(self, step: _Step) -> Tensor:
        """Logits [rows, vocab] of a filled step; the next call overwrites them."""
        if self._captures and step.graph is None:
            self._capture(step)
        if step.graph is None or step.logits is None or not self._captures:
            return self._pass(step.state, step.buffers)
        step.graph.replay()
        return step.logits

    def _capture(self, step: _Step) -> None:
        """Capture the step; a first pass compiles its kernels, which a capture cannot do."""
        device = torch.cuda.device(self._device)
        try:
            with device:
                stream = torch.cuda.Stream()
                stream.wait_stream(torch.cuda.current_stream())
                with torch.cuda.stream(stream):
                    self._pass(step.state, step.buffers)
                torch.cuda.current_stream().wait_stream(stream)
                self._pool = self._pool or torch.cuda.graph_pool_handle()
                graph = torch.cuda.CUDAGraph()
                with torch.cuda.graph(
                    graph, pool=self._pool, stream=stream, capture_error_mode="thread_local"
                ):
                    step.logits = self._pass(step.state, step.buffers)
            step.graph = graph
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            logging.getLogger(__name__).warning(
                "no CUDA graph for this model (%s): each kernel is launched by itself", error
            )
            self._captures = False

    def _pass(self, state: Tensor, buffers: Tensor) -> Tensor:
        """One token a row, each after its own text → logits [rows, vocab].

        Its only inputs are tensors, and it waits for nothing.
        """
        x = F.embedding(state[:, 0], self._embedding.table)  # [rows, hidden]
        for index, layer in enumerate(self._plain_layers):
            qkv = self._fused(layer.qkv, x, layer.attention_norm)
            out = launch.attention(qkv, state, buffers, self._frequencies, index, *self._heads)
            x = self._fused(layer.output, out, residual=x)
            inner = self._fused(layer.gate_up, x, layer.mlp_norm, gated=True)
            x = self._fused(layer.down, inner, residual=x)
        norm, head = self._head.norm, self._head.weight
        if norm is None or self._switch.active or not launch.fits(x, head):
            return self._head(x)
        return launch.matvec(x, head, None, norm=norm.weight, eps=norm.epsilon)

    def _fused(
        self, layer: AdaptedLinear, x: Tensor, norm: TorchNorm | None = None, **options: Any
    ) -> Tensor:
        """A layer, without the detour over live adapters if none is active."""
        if norm is not None:
            options |= {"norm": norm.weight, "eps": norm.epsilon}
        return fused(layer if self._switch.active else layer.inner, x, **options)


def _plain_layer(layer: TorchLayer) -> _Layer:
    (attending,), (mixing,) = layer.stages
    attention, rows = attending.run, mixing.run
    assert isinstance(attention, TorchAttention) and isinstance(rows, RowsRunner)
    mlp, norms = rows.run, (attending.norm, mixing.norm)
    assert isinstance(mlp, TorchMlp) and norms[0] is not None and norms[1] is not None
    return _Layer(norms[0], attention.inputs, attention.output, norms[1], mlp.gate_up, mlp.down)
