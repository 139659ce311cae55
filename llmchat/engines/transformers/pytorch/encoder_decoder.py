"""Encoder-decoders (T5) in plain torch."""

from collections.abc import Sequence

import torch
from torch import Tensor

from llmchat.engines.transformers import encoded
from llmchat.engines.transformers.encoded import EncodedCache
from llmchat.engines.transformers.executor import SequenceInput
from llmchat.engines.transformers.families.cache_shapes import split_shapes
from llmchat.engines.transformers.families.plan import Plan
from llmchat.engines.transformers.pytorch.forward import TorchForward
from llmchat.engines.transformers.pytorch.kv_cache import KVCache
from llmchat.engines.transformers.tensors import Tensors
from llmchat.settings.types import KvKind, Weights


class TorchEncoderDecoder(TorchForward):
    """A plan that has an encoder. The first read of a text is its prompt, see encoded.py."""

    separate_encoder = True

    def __init__(
        self,
        plan: Plan,
        tensors: Tensors,
        kind: Weights,
        device: torch.device,
        kv: KvKind = "full",
    ):
        super().__init__(plan, tensors, kind, device, kv)
        assert plan.encoder, "see TorchForward"
        self._start = plan.encoder.start
        count = len(plan.encoder.layers)
        self._encoder, self._layers = self._layers[:count], self._layers[count:]

    def new_cache(self) -> EncodedCache:  # type: ignore[override]
        source, target = split_shapes(self.plan)
        first, second = (
            KVCache(one, self.dtype, self._device, kind=self._kv) for one in (source, target)
        )
        return EncodedCache(first, second)

    def run(self, sequences: Sequence[SequenceInput]) -> list[Tensor]:
        return encoded.run(self._encode, self._run, self._start, sequences)

    def _encode(self, prompts: Sequence[SequenceInput]) -> None:
        self._by_adapters(prompts, lambda group: [self._read(group, self._encoder)] * len(group))
