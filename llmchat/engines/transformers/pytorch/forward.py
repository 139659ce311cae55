"""The forward pass of a plan in plain torch: the reference, and what GPUs run.

It gives the same numbers as transformers' modules, without their module tree (half of the time of a
small model) and their import (seconds of start-up).
"""

from collections.abc import Callable, Sequence
from itertools import groupby

import torch
from torch import Tensor

from llmchat.engines.transformers import rereading
from llmchat.engines.transformers.executor import Forward, SequenceInput
from llmchat.engines.transformers.families.cache_shapes import cache_shapes
from llmchat.engines.transformers.families.check import bind, linears
from llmchat.engines.transformers.families.plan import Layer, Plan, Step
from llmchat.engines.transformers.live_lora import Switch
from llmchat.engines.transformers.pytorch.ends import TorchEmbedding, TorchHead, TorchLayerInputs
from llmchat.engines.transformers.pytorch.kv_cache import KVCache
from llmchat.engines.transformers.pytorch.linear import compute_dtype
from llmchat.engines.transformers.pytorch.loader import Loader
from llmchat.engines.transformers.pytorch.passes import Pass
from llmchat.engines.transformers.pytorch.runners import runner, runs
from llmchat.engines.transformers.tensors import Tensors
from llmchat.settings.types import KvKind, Weights


def supports(plan: Plan) -> bool:
    """Whether torch can run all blocks of a plan."""
    return all(map(runs, plan.blocks()))


class TorchForward(Forward):
    """A loaded model: token ids in, logits out. Shapes: T new tokens of all texts.

    tensors: under the names of the plan (families.viewed). Raises IntegrityError if they do not fit
    it.
    """

    batches = True
    exact = False

    def __init__(
        self,
        plan: Plan,
        tensors: Tensors,
        kind: Weights,
        device: torch.device,
        kv: KvKind = "full",
    ):
        self.plan = plan = bind(plan, tensors.shapes)
        self.dtype = compute_dtype(kind)
        self.adaptable = frozenset(linear.module for linear in linears(plan))
        self._device, self._kv = device, kv
        self._switch = Switch()
        self._cache_shapes, self._trained = cache_shapes(plan), plan.trained
        self.whole_context = plan.answer_start is not None
        load = self._loader(tensors, kind, device)
        self._embedding = TorchEmbedding(plan, load)
        self._layers = layers_of(plan, load)
        self._head = TorchHead(plan, load, self._embedding.table)
        inputs = plan.layer_inputs
        self._layer_inputs = TorchLayerInputs(inputs, load) if inputs else None

    def _loader(self, tensors: Tensors, kind: Weights, device: torch.device) -> Loader:
        return Loader(tensors, kind, device, self._switch)

    def new_cache(self) -> KVCache:
        shapes, start = self._cache_shapes, self.plan.answer_start
        return KVCache(shapes, self.dtype, self._device, self._trained, self._kv, start)

    def run(self, sequences: Sequence[SequenceInput]) -> list[Tensor]:
        return rereading.run(self._run, sequences)

    def _run(self, sequences: Sequence[SequenceInput]) -> list[Tensor]:
        return self._by_adapters(sequences, self._run_batch)

    def _by_adapters(
        self,
        sequences: Sequence[SequenceInput],
        run: Callable[[list[SequenceInput]], list[Tensor]],
    ) -> list[Tensor]:
        """What `run` returns for each sequence. It is called with those of the same adapters."""
        order = sorted(range(len(sequences)), key=lambda index: _adapter_key(sequences[index]))
        logits: list[Tensor] = [torch.empty(0)] * len(sequences)
        for adapters, indices in groupby(order, key=lambda index: sequences[index].adapters):
            group = list(indices)
            self._switch.active = adapters
            results = run([sequences[index] for index in group])
            for index, result in zip(group, results, strict=True):
                logits[index] = result
        return logits

    def _run_batch(self, sequences: list[SequenceInput]) -> list[Tensor]:
        """As `run`, for sequences with the same adapters."""
        return self._logits(sequences, self._read(sequences, self._layers))

    def _read(self, sequences: list[SequenceInput], layers: "list[TorchLayer]") -> Tensor:
        """[T, hidden] after these layers, whose caches have counted the tokens."""
        batch = Pass(sequences, self.dtype, self._device)
        for row in batch.rows:
            row.cache.reserve(row.end)
        try:
            x = self._rows(batch, layers)
        except BaseException:
            _forget_states(batch)
            raise
        for row in batch.rows:
            row.cache.advance(row.ids)
        return x

    def _rows(self, batch: Pass, layers: "list[TorchLayer]") -> Tensor:
        ids = batch.ids(self._device)
        x = self._embedding(ids, batch)
        if self._layer_inputs:
            batch.layer_inputs = self._layer_inputs(ids, x)
        for layer in layers:
            x = layer(x, batch)
        return x

    def _logits(self, sequences: list[SequenceInput], x: Tensor) -> list[Tensor]:
        states = x.split([len(sequence.ids) for sequence in sequences])
        wanted = [
            state if sequence.all_logits else state[-1:]
            for sequence, state in zip(sequences, states, strict=True)
        ]
        logits = self._head(torch.cat(wanted))
        return list(logits.split([len(state) for state in wanted]))


class TorchStep:
    """x, [T, hidden] → what is added to it."""

    def __init__(self, step: Step, number: int, load: Loader):
        self.norm = load.norm(step.norm)
        self.run = runner(step.block, number, load)
        self._post_norm = load.norm(step.post_norm)
        self.stream_norm = load.norm(step.stream_norm)
        self._scale = step.scale
        self.factor = step.factor

    def __call__(self, x: Tensor, batch: Pass) -> Tensor:
        out = self.run(x if self.norm is None else self.norm(x), batch)
        if self._post_norm:
            out = self._post_norm(out)
        return out if self._scale == 1 else out * self._scale


class TorchLayer:
    """x, [T, hidden] → x after the layer."""

    def __init__(self, layer: Layer, number: int, load: Loader):
        """number: of its first block in the plan."""
        self.stages: list[list[TorchStep]] = []
        for stage in layer.stages:
            self.stages.append(
                [TorchStep(step, number + index, load) for index, step in enumerate(stage)]
            )
            number += len(stage)
        self._factor = load.plain(layer.factor) if layer.factor else None

    def __call__(self, x: Tensor, batch: Pass) -> Tensor:
        for stage in self.stages:
            if stage[0].stream_norm:
                x = stage[0].stream_norm(x)
            before = x
            for step in stage:
                x = x + step(before, batch)
                x = x if step.factor == 1 else x * step.factor
        return x if self._factor is None else x * self._factor


def layers_of(plan: Plan, load: Loader) -> list[TorchLayer]:
    """All layers of a plan, those of its encoder first."""
    layers, number = [], 0
    for layer in plan.all_layers:
        layers.append(TorchLayer(layer, number, load))
        number += sum(map(len, layer.stages))
    return layers


def _forget_states(batch: Pass) -> None:
    """After a pass that was interrupted between two blocks."""
    for row in batch.rows:
        if row.cache.has_states:
            row.cache.clear()


def _adapter_key(sequence: SequenceInput) -> tuple[tuple[int, float], ...]:
    """The same for sequences with the same adapters, and sortable."""
    return tuple((id(adapter), strength) for adapter, strength in sequence.adapters)
