"""Encoder-decoders (T5) on the compiled step: a pass of the encoder, then passes of the decoder."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from llmchat.engines.transformers import encoded
from llmchat.engines.transformers.compiled.blocks import scratch_of
from llmchat.engines.transformers.compiled.forward import CompiledForward
from llmchat.engines.transformers.compiled.kernels import Kernels
from llmchat.engines.transformers.compiled.kv_cache import CompiledCache
from llmchat.engines.transformers.encoded import EncodedCache
from llmchat.engines.transformers.executor import SequenceInput
from llmchat.engines.transformers.families import blocks
from llmchat.engines.transformers.families.cache_shapes import KeyValues, split_shapes
from llmchat.engines.transformers.tensors import Tensors
from llmchat.settings.types import KvKind


class CompiledEncoderDecoder(CompiledForward):
    """A plan that has an encoder. The first read of a text is its prompt, see encoded.py."""

    separate_encoder = True

    def __init__(
        self,
        config: dict[str, Any],
        tensors: Tensors,
        kernels: Kernels,
        kv: KvKind = "full",
    ):
        super().__init__(config, tensors, kernels, kv)
        assert self._plan.encoder, "see CompiledForward"
        self._start = self._plan.encoder.start
        source, target = split_shapes(self._plan)
        scratch = scratch_of(self._plan)
        inner = self._plan.blocks()[scratch]
        assert isinstance(inner, blocks.Attention)
        keys, values = inner.keys, inner.values
        source[scratch] = KeyValues(keys.count, keys.width, values.width)
        self._source, self._target = tuple(source), tuple(target)
        self._known_shapes = (self._source, self._target)

    def new_cache(self) -> EncodedCache:  # type: ignore[override]
        source, target = (CompiledCache(one, kind=self._kv) for one in (self._source, self._target))
        return EncodedCache(source, target)

    def run(self, sequences: Sequence[SequenceInput]) -> list[Tensor]:
        """As in Forward. Raises ValueError for input that the C code must not see."""
        self._check_caches(sequences)
        return encoded.run(self._encode, self._decode, self._start, sequences)

    def _encode(self, prompts: Sequence[SequenceInput]) -> None:
        found = torch.empty(len(prompts))
        self._step(prompts, found, encodes=True)
        for prompt, is_valid in zip(prompts, found.isfinite().tolist(), strict=True):
            prompt.cache.is_valid = is_valid

    def _decode(self, sequences: Sequence[SequenceInput]) -> list[Tensor]:
        logits = self._read(sequences)
        for sequence, found in zip(sequences, logits, strict=True):
            if not sequence.cache.memory.is_valid:
                found.fill_(torch.nan)
        return logits
