"""What the forward passes have in common: llama.py, general.py, encoder_decoder.py and native/."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from llmchat.engines.transformers.live_lora import LiveAdapters


class Cache(Protocol):
    """What a model keeps of one text: keys and values, or a state."""

    @property
    def length(self) -> int:
        """Tokens that were read."""
        ...

    def truncate(self, length: int) -> int:
        """Forget all but the first `length` tokens; returns how many are kept, which may be fewer."""
        ...


@dataclass(frozen=True)
class SequenceInput:
    """Tokens to be read behind those in a cache. all_logits: logits are wanted after each of them. adapters: the ones in force for this text."""

    cache: Any
    ids: list[int]
    all_logits: bool = False
    adapters: LiveAdapters = ()


class Forward(Protocol):
    """A loaded model. `batches`: reading parts together is faster than one after the other. `exact`: the numbers of a token are the same to the
    bit whatever is read with it, so that drafts change nothing."""

    batches: bool
    exact: bool
    dtype: torch.dtype  # of activations

    def new_cache(self) -> Cache: ...

    def run(self, sequences: Sequence[SequenceInput]) -> list[Tensor]:
        """Read the parts, each behind its cache. Returns logits for each: [1, vocab] after its last token, or [T, vocab] with `all_logits`."""
        ...
