"""Sampling that never waits for the device: the next step is on its way before the host knows which token it reads."""

from collections.abc import Callable

import torch
from torch import Tensor

from llmchat.engines import Sampling
from llmchat.engines.transformers.pytorch.sampler import Sampler


class DeviceSampler(Sampler):
    """The tokens that Sampler would choose, from the same numbers, with shapes that do not depend on them.

    follow: told of each token as it is chosen, still on the device, int64 [1].
    """

    def __init__(
        self,
        sampling: Sampling,
        prompt_ids: list[int],
        device: torch.device,
        follow: Callable[[Tensor], None],
    ):
        super().__init__(sampling, prompt_ids, device)
        self._follow = follow
        self._told: Tensor | None = None
        self._spoken: Tensor | None = None
        if device.type == "cuda":
            self._told = torch.empty(1, dtype=torch.long, pin_memory=True)
            self._ready = torch.cuda.Event()

    def choose(self, logits: Tensor) -> int:
        """logits: [vocab] → token id."""
        with torch.inference_mode():
            token = self._next(logits)
        if self._told is None:
            self._follow(token)
            return int(token)
        # The copy goes first: it must not wait for the step that follows.
        self._told.copy_(token, non_blocking=True)
        self._ready.record(torch.cuda.current_stream(token.device))
        self._follow(token)
        self._ready.synchronize()
        return int(self._told)

    def _next(self, logits: Tensor) -> Tensor:
        logits = logits.float()
        if self._seen is not None:
            if self._spoken is None:
                self._spoken = torch.zeros_like(logits, dtype=torch.bool).index_fill_(
                    0, self._seen, True
                )
            penalty = self._sampling.repetition_penalty
            logits = torch.where(
                self._spoken, torch.where(logits > 0, logits / penalty, logits * penalty), logits
            )
        token = (
            logits.argmax(keepdim=True) if self._sampling.temperature == 0 else self._drawn(logits)
        )
        if self._spoken is not None:
            self._spoken.index_fill_(0, token, True)
        return token

    def _drawn(self, logits: Tensor) -> Tensor:
        ids, chances = weights(logits, self._sampling)
        reached = chances.double().cumsum(-1)
        point = (
            torch.rand(1, generator=self._generator, dtype=torch.float64, device=chances.device)
            * reached[-1]
        )
        # To the right of equal sums: a token without a chance is never met.
        place = torch.searchsorted(reached, point, right=True).clamp_(max=len(chances) - 1)
        return place if ids is None else ids[place]


def weights(logits: Tensor, sampling: Sampling) -> tuple[Tensor | None, Tensor]:
    """Tokens and their probabilities after temperature, top-k, top-p and min-p, not normalised, 0 for those that are out.

    None for the ids: all tokens in their order.
    """
    logits = logits / sampling.temperature
    ids: Tensor | None = None
    if 0 < sampling.top_k < logits.numel():
        logits, ids = logits.topk(sampling.top_k)
    elif sampling.top_p < 1:
        logits, ids = logits.sort(descending=True)
    chances = logits.softmax(-1)
    if sampling.top_p < 1:
        before = chances.cumsum(-1) - chances
        chances = torch.where(before < sampling.top_p, chances, 0.0)
    if sampling.min_p > 0:
        chances = torch.where(chances >= sampling.min_p * chances.max(), chances, 0.0)
    return ids, chances
