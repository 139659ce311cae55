"""Sampling that never waits for the device.

The next step is launched before the host knows which token it reads.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from llmchat.engines import Sampling
from llmchat.engines.guide import Mask
from llmchat.engines.transformers.pytorch.sampler import Sampler, fixed_size_candidates


class DeviceSampler(Sampler):
    """Chooses the same tokens as Sampler, with shapes that do not depend on the numbers. No DRY.

    follow: called with each token as it is chosen, still on the device, int64 [1].
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
        self._host_token: Tensor | None = None
        if device.type == "cuda":
            self._host_token = torch.empty(1, dtype=torch.long, pin_memory=True)
            self._copied = torch.cuda.Event()

    def choose(self, logits: Tensor, mask: Mask | None = None) -> int:
        """logits: [vocab] → token id. An answer with masks has another sampler: what may follow is
        known only when the host knows the token.
        """
        assert mask is None
        with torch.inference_mode():
            token = self._next(logits)
        if self._host_token is None:
            self._follow(token)
            return int(token)
        # The copy goes first, so that it does not wait for the following step.
        self._host_token.copy_(token, non_blocking=True)
        self._copied.record(torch.cuda.current_stream(token.device))
        self._follow(token)
        self._copied.synchronize()
        return int(self._host_token)

    def _next(self, logits: Tensor) -> Tensor:
        logits = logits.float()
        if self._penalties is not None:
            logits = self._penalties.apply(logits)
        if self._sampling.temperature == 0:
            token = logits.argmax(keepdim=True)
        else:
            token = self._draw(*fixed_size_candidates(logits, self._sampling))
        if self._penalties is not None:
            self._penalties.accept_on_device(token)
        return token
