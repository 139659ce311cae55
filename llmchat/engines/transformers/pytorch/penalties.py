"""Logits that depend on the tokens so far: bias, repetition, frequency, presence, DRY.

The order is that of vLLM's and llama.cpp's samplers. Shapes do not depend on the tokens, so that
a GPU is not waited for; DRY alone reads them on the host.
"""

import torch
from torch import Tensor

from llmchat.engines import Sampling
from llmchat.engines.transformers.dry import Dry
from llmchat.engines.transformers.vocabulary import check_bias


def penalises(sampling: Sampling) -> bool:
    """Whether logits are changed before the temperature is applied."""
    return bool(
        sampling.logit_bias
        or sampling.repetition_penalty != 1
        or sampling.frequency_penalty
        or sampling.presence_penalty
        or sampling.dry_multiplier
    )


class Penalties:
    """The changes for one answer. dry: its state if `sampling` asks for DRY."""

    def __init__(
        self, sampling: Sampling, prompt_ids: list[int], device: torch.device, dry: Dry | None
    ):
        self._sampling = sampling
        self._device = device
        self._prompt = torch.tensor(prompt_ids, dtype=torch.long, device=device)
        self._dry = dry
        # [vocab] from the first logits on, where they are used.
        self._bias: Tensor | None = None
        self._seen: Tensor | None = None
        # The ids instead, on a CPU, where most of a vocabulary need not be touched.
        self._seen_ids: Tensor | None = None
        self._counts: Tensor | None = None
        self._began = False
        # Tokens of the answer before the first logits.
        self._early: list[int] = []

    def apply(self, logits: Tensor) -> Tensor:
        """The changed logits, float32 [vocab]; the argument keeps its numbers."""
        if not self._began:
            self._begin(logits)
        if self._bias is not None:
            logits = logits + self._bias
        if self._seen is not None:
            logits = penalise(logits, self._seen, self._sampling.repetition_penalty)
        if self._seen_ids is not None:
            logits = penalise_ids(logits, self._seen_ids, self._sampling.repetition_penalty)
        if self._counts is not None:
            logits = logits - additive(self._counts, self._sampling)
        if self._dry is not None and (changes := self._dry.penalties()):
            ids = torch.tensor([*changes], device=self._device)
            values = torch.tensor([*changes.values()], device=self._device)
            logits = logits.index_add(0, ids, values, alpha=-1)
        return logits

    def accept(self, token: int) -> None:
        """Add a token of the answer."""
        if self._began:
            self.accept_on_device(torch.tensor([token], device=self._device))
        else:
            self._early.append(token)
        if self._dry is not None:
            self._dry.feed(token)

    def accept_on_device(self, token: Tensor) -> None:
        """As `accept`, for a token that the host does not know yet, int64 [1]. Not for DRY."""
        if self._seen is not None:
            self._seen.index_fill_(0, token, True)
        if self._seen_ids is not None:
            self._seen_ids = torch.cat((self._seen_ids, token))
        if self._counts is not None:
            self._counts.index_add_(0, token, torch.ones_like(token, dtype=torch.float32))

    def _begin(self, logits: Tensor) -> None:
        self._began = True
        bias, sampling = self._sampling.logit_bias, self._sampling
        if bias:
            check_bias(bias, len(logits))
            ids = torch.tensor([*bias], device=self._device)
            values = torch.tensor([*bias.values()], device=self._device, dtype=torch.float32)
            self._bias = torch.zeros_like(logits).index_copy(0, ids, values)
        if sampling.repetition_penalty != 1 and self._device.type == "cpu":
            self._seen_ids = self._prompt.unique()
        elif sampling.repetition_penalty != 1:
            nothing = torch.zeros_like(logits, dtype=torch.bool)
            self._seen = nothing.index_fill_(0, self._prompt, True)
        if sampling.frequency_penalty or sampling.presence_penalty:
            self._counts = torch.zeros_like(logits)
        for token in self._early:
            self.accept_on_device(torch.tensor([token], device=self._device))


def penalise(logits: Tensor, seen: Tensor, penalty: float) -> Tensor:
    """The repetition penalty of CTRL (Keskar et al. 2019). seen: bool [vocab].

    Positive logits are divided, negative ones multiplied.
    """
    changed = torch.where(logits > 0, logits / penalty, logits * penalty)
    return torch.where(seen, changed, logits)


def penalise_ids(logits: Tensor, seen: Tensor, penalty: float) -> Tensor:
    """As `penalise`. seen: int64 ids, with or without repetitions."""
    scores = logits[seen]
    return logits.index_copy(0, seen, torch.where(scores > 0, scores / penalty, scores * penalty))


def additive(counts: Tensor, sampling: Sampling) -> Tensor:
    """What OpenAI's API reference subtracts. counts: [vocab], how often the answer has a token."""
    return counts * sampling.frequency_penalty + (counts > 0) * sampling.presence_penalty
