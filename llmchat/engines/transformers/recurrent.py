"""RWKV: what was read is a state of fixed size, which can be continued but not cut.

Copies of the state are kept where prompts ended, so that an answer that is asked for again, or that the history holds in a shortened form,
is continued from there and the conversation before it is not read again. A copy of a 3B model's state is 1.6 MB.
"""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from llmchat.engines import Weights
from llmchat.engines.transformers.linear import compute_dtype
from llmchat.engines.transformers.tree import build
from llmchat.engines.transformers.weights import Tensors

_COPIES = 8


class RecurrentForward:
    """A transformers RWKV model and its state behind the same two calls as LlamaForward."""

    def __init__(self, folder: Path, config: dict[str, Any], tensors: Tensors, kind: Weights, device: torch.device):
        self.dtype = compute_dtype(kind)
        self._device = device
        self._model = build(folder, config, tensors, kind, device)
        # Halving the activations every few layers keeps fp16 from overflowing; bf16 does not, and quantised weights cannot be halved in place.
        self._model.config.rescale_every = 0
        self._length = 0
        self._state: list[Tensor] | None = None
        self._copies: list[tuple[int, list[Tensor]]] = []

    def read(self, ids: list[int], *, every: bool = False) -> Tensor:
        """Read more tokens, behind those in the state. Returns logits for what follows the last, [1, vocab], or each of them, [T, vocab].

        A read of several tokens is a prompt's: a copy of the state is kept before its last token, which is what is read again.
        """
        if len(ids) > 1 and not every:
            self._step(ids[:-1], every=False)
            assert self._state is not None
            self._copies = [*self._copies[1 - _COPIES :], (self._length, [part.clone() for part in self._state])]
            ids = ids[-1:]
        return self._step(ids, every)

    def truncate(self, length: int) -> int:
        """Go back to the last copy of the state that is at most `length` tokens old; returns its length, 0 when there is none."""
        if self._length > length:
            self._copies = [copy for copy in self._copies if copy[0] <= length]
            self._length, state = self._copies[-1] if self._copies else (0, None)
            self._state = None if state is None else [part.clone() for part in state]
        return self._length

    def _step(self, ids: list[int], every: bool) -> Tensor:
        try:
            tokens = torch.tensor([ids], device=self._device)
            out = self._model(input_ids=tokens, state=self._state, use_cache=True, logits_to_keep=0 if every else 1)
        except BaseException:
            # The layers change the state in place, one after the other.
            self._length, self._state = 0, None
            self._copies.clear()
            raise
        self._state = out.state
        self._length += len(ids)
        logits: Tensor = out.logits[0]
        return logits if every else logits[-1:]
