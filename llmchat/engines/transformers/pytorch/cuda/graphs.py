"""The Llama family on a GPU: a pass of few rows is one captured graph, replayed; what waits for the device is one token behind it.

A graph has fixed addresses. So tokens, positions and the addresses of the caches lie in tensors of its own, which are filled before each
replay: one graph serves every text and every length, and a cache may grow.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from llmchat.engines import Sampling
from llmchat.engines.transformers.executor import SequenceInput
from llmchat.engines.transformers.live_lora import LiveAdapters, add_live
from llmchat.engines.transformers.pytorch.cuda import launch
from llmchat.engines.transformers.pytorch.cuda.linear import fused
from llmchat.engines.transformers.pytorch.cuda.sampling import DeviceSampler
from llmchat.engines.transformers.pytorch.forward import TorchForward
from llmchat.engines.transformers.pytorch.kv_cache import KVCache

# Graphs that are kept: one for each number of rows, and more where live adapters change.
_MOST_GRAPHS = 32


class CudaCache(KVCache):
    """A KVCache that knows where it is: `places`, int64 [layers, 2], the addresses of keys and values of each layer."""

    places: Tensor

    @property
    def capacity(self) -> int:
        return self._capacity

    def reserve(self, length: int) -> None:
        before = self._capacity
        super().reserve(length)
        if self._capacity != before:
            pairs = [
                (keys.data_ptr(), values.data_ptr())
                for keys, values in zip(self._keys, self._values, strict=True)
            ]
            self.places = torch.tensor(pairs, device=self._options["device"])


class _Step:
    """The tensors of a pass of `rows` rows, and its graph once it is captured."""

    def __init__(self, rows: int, layers: int, device: torch.device):
        self.state = torch.zeros(
            rows, 3, dtype=torch.long, device=device
        )  # token, position, capacity
        self.buffers = torch.zeros(rows, layers, 2, dtype=torch.long, device=device)
        self.logits: Tensor | None = None
        self.graph: Any = None
        self._held: list[Tensor] = []

    def fill(self, rows: Sequence[tuple[int, int, CudaCache]]) -> None:
        """rows: token, position and cache of each. Not waited for: small copies from the host are taken over at once."""
        state = torch.tensor([(token, position, cache.capacity) for token, position, cache in rows])
        self.state.copy_(state, non_blocking=True)
        places = [cache.places for _, _, cache in rows]
        if len(places) != len(self._held) or any(
            new is not old for new, old in zip(places, self._held, strict=True)
        ):
            torch.stack(places, out=self.buffers)
            self._held = places


@dataclass(frozen=True)
class _Ahead:
    """A step that was begun before anyone asked: the token at `position` of a cache, where the host will find out which, and its logits."""

    cache: KVCache
    position: int
    adapters: LiveAdapters
    logits: Tensor


class CudaForward(TorchForward):
    """TorchForward on one GPU, activations in bf16. Prompts are read as on any device."""

    def __init__(self, *args: Any):
        super().__init__(*args)
        self._frequencies = self._frequencies.contiguous()
        self._steps: dict[tuple[int, LiveAdapters], _Step] = {}
        self._captures = self._device.type == "cuda"
        self._pool: Any = None
        self._last: tuple[KVCache, LiveAdapters] | None = None
        self._ahead: _Ahead | None = None
        if self._captures:
            # Here, while the user types, and not before the first answer: compiling takes seconds, once on a machine.
            self.run([SequenceInput(self.new_cache(), [0])])

    def new_cache(self) -> KVCache:
        return CudaCache(
            len(self._layers), self._kv_heads, self._head_dim, self.dtype, self._device
        )

    def sampler(
        self, sampling: Sampling, prompt_ids: list[int], device: torch.device
    ) -> DeviceSampler:
        """A sampler whose choices this pass follows at once."""
        return DeviceSampler(sampling, prompt_ids, device, self.follow)

    def run(self, sequences: Sequence[SequenceInput]) -> list[Tensor]:
        ahead, self._ahead, self._last = self._ahead, None, None
        if len(sequences) == 1:
            sequence = sequences[0]
            if ahead is not None and _is_that(ahead, sequence):
                sequence.cache.advance(1)
                logits = [ahead.logits]
            else:
                logits = super().run(sequences)
            if not sequence.all_logits:
                self._last = sequence.cache, sequence.adapters
            return logits
        return super().run(sequences)

    def follow(self, token: Tensor) -> None:
        """Begin the step that reads `token`, int64 [1] on the device, behind what was read last; `read` gives its logits when it is asked for them.

        The caller reads this very token next behind that text, or does not go on with it.
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
            self._ahead = _Ahead(cache, cache.length, adapters, self._execute(step).clone())

    def _run_batch(self, sequences: list[SequenceInput]) -> list[Tensor]:
        if sum(len(sequence.ids) for sequence in sequences) > launch.MOST_ROWS:
            return super()._run_batch(sequences)
        rows = []
        for sequence in sequences:
            sequence.cache.reserve(sequence.cache.length + len(sequence.ids))
            rows += [
                (token, sequence.cache.length + index, sequence.cache)
                for index, token in enumerate(sequence.ids)
            ]
        step = self._step(len(rows))
        step.fill(rows)
        logits = self._execute(step).split([len(sequence.ids) for sequence in sequences])
        for sequence in sequences:
            sequence.cache.advance(len(sequence.ids))
        # The graph writes its next logits over these.
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
        """Logits [rows, vocab] of a filled step, by its graph; the next call writes over them."""
        if not self._captures:
            return self._pass(step.state, step.buffers)
        if step.graph is None:
            self._capture(step)
        if step.graph is None:
            return self._pass(step.state, step.buffers)
        step.graph.replay()
        assert step.logits is not None
        return step.logits

    def _capture(self, step: _Step) -> None:
        """Compile what the step needs, which cannot be done within a capture, and capture it."""
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
        """One token a row, each behind its own text → logits [rows, vocab]. Reads its inputs from tensors alone, and waits for nothing."""
        x = F.embedding(state[:, 0], self._embedding)  # [rows, hidden]
        for index, layer in enumerate(self._layers):
            qkv = self._fused(layer.qkv, x, norm=layer.attention_norm)
            attended = launch.attention(
                qkv,
                state,
                buffers,
                self._frequencies,
                index,
                self._heads,
                self._kv_heads,
                self._head_dim,
            )
            x = self._fused(layer.output, attended, residual=x)
            x = self._fused(
                layer.down,
                self._fused(layer.gate_up, x, norm=layer.mlp_norm, gated=True),
                residual=x,
            )
        if launch.fits(x, self._head) and not self._switch.active:
            return launch.matvec(x, self._head, None, norm=self._norm, eps=self._eps)
        x = self._normed(x, self._norm)
        logits = F.linear(x, self._head)
        add_live(logits, x, {"lm_head": len(self._head)}, self._switch)
        return logits

    def _fused(self, layer: Any, x: Tensor, **options: Any) -> Tensor:
        """A layer without its live adapters where none is in force."""
        return fused(layer if self._switch.active else layer.inner, x, eps=self._eps, **options)


def _is_that(ahead: _Ahead, sequence: SequenceInput) -> bool:
    return (
        ahead.cache is sequence.cache
        and ahead.position == sequence.cache.length
        and len(sequence.ids) == 1
        and ahead.adapters == sequence.adapters
    )
