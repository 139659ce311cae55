"""RWKV: what was read is a state of fixed size, which can be continued but not cut.

Copies of the state are kept where prompts ended, so that an answer that is asked for again, or that the history holds in a shortened form,
is continued from there and the conversation before it is not read again. A copy of a 3B model's state is 1.6 MB.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from llmchat.engines import Weights
from llmchat.engines.transformers.forward import Part
from llmchat.engines.transformers.linear import compute_dtype
from llmchat.engines.transformers.live import Switch
from llmchat.engines.transformers.tree import build
from llmchat.engines.transformers.weights import Tensors

_COPIES = 8


class RecurrentForward:
    """A transformers RWKV model behind the same calls as LlamaForward. Texts are read one after the other."""

    batches = False
    exact = False

    def __init__(self, folder: Path, config: dict[str, Any], tensors: Tensors, kind: Weights, device: torch.device):
        self.dtype = compute_dtype(kind)
        self._device = device
        self._switch = Switch()
        self._model = build(folder, config, tensors, kind, device, switch=self._switch)
        # Halving the activations every few layers keeps fp16 from overflowing; bf16 does not, and quantised weights cannot be halved in place.
        self._model.config.rescale_every = 0

    def new_cache(self) -> "State":
        return State(self._model, self._device)

    def read(self, parts: Sequence[Part]) -> list[Tensor]:
        """Read more tokens of each text. Returns logits for each: [1, vocab] after its last token, or [T, vocab] with `every`."""
        logits = []
        for part in parts:
            self._switch.active = part.adapters
            logits.append(part.cache.read(part.ids, part.every))
        return logits


class State:
    """The state after the tokens that were read, and copies of earlier ones."""

    def __init__(self, model: Any, device: torch.device):
        self.length = 0
        self._model = model
        self._device = device
        self._state: list[Tensor] | None = None
        self._copies: list[tuple[int, list[Tensor]]] = []

    def read(self, ids: list[int], every: bool) -> Tensor:
        """A read of several tokens is a prompt's: a copy of the state is kept before its last token, which is what is read again."""
        if len(ids) > 1 and not every:
            self._step(ids[:-1], every=False)
            assert self._state is not None
            self._copies = [*self._copies[1 - _COPIES :], (self.length, [part.clone() for part in self._state])]
            ids = ids[-1:]
        return self._step(ids, every)

    def truncate(self, length: int) -> int:
        """Go back to the last copy of the state that is at most `length` tokens old; returns its length, 0 when there is none."""
        if self.length > length:
            self._copies = [copy for copy in self._copies if copy[0] <= length]
            self.length, state = self._copies[-1] if self._copies else (0, None)
            self._state = None if state is None else [part.clone() for part in state]
        return self.length

    def _step(self, ids: list[int], every: bool) -> Tensor:
        try:
            tokens = torch.tensor([ids], device=self._device)
            out = self._model(input_ids=tokens, state=self._state, use_cache=True, logits_to_keep=0 if every else 1)
        except BaseException:
            # The layers change the state in place, one after the other.
            self.length, self._state = 0, None
            self._copies.clear()
            raise
        self._state = out.state
        self.length += len(ids)
        logits: Tensor = out.logits[0]
        return logits if every else logits[-1:]
