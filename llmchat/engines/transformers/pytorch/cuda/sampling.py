"""Sampling that never waits for the device: the next step is on its way before the host knows which token it reads."""

from collections.abc import Callable

import torch
from torch import Tensor

from llmchat.engines import Sampling
from llmchat.engines.transformers.pytorch.sampler import Sampler, fixed_size_candidates


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
        ids, chances = fixed_size_candidates(logits, self._sampling)
        reached = chances.double().cumsum(-1)
        point = (
            torch.rand(1, generator=self._generator, dtype=torch.float64, device=chances.device)
            * reached[-1]
        )
        # To the right of equal sums: a token without a chance is never met.
        place = torch.searchsorted(reached, point, right=True).clamp_(max=len(chances) - 1)
        return place if ids is None else ids[place]
