"""The next token, chosen in C (choice.h): a pass of a small model takes little longer than plain torch takes to choose from its vocabulary."""

import torch
from torch import Tensor

from llmchat.engines import Sampling
from llmchat.engines.transformers.compiled.build import Kernels
from llmchat.engines.transformers.compiled.structs import Choosing
from llmchat.engines.transformers.pytorch.sampler import Sampler, chosen
from llmchat.settings.sampling import DISTRIBUTION

# Drawn at once: the same numbers as one by one.
_POINTS = 64


class CompiledSampler(Sampler):
    """The tokens of `Sampler`, up to rounding."""

    def __init__(
        self, sampling: Sampling, prompt_ids: list[int], device: torch.device, kernels: Kernels
    ):
        super().__init__(sampling, prompt_ids, device)
        self._kernels = kernels
        self._points: list[float] = []
        self._how = Choosing(*(getattr(sampling, name) for name in DISTRIBUTION))

    def choose(self, logits: Tensor) -> int:
        # Without a penalty nothing is left to torch, each of whose calls gives other threads (a server's) the interpreter and waits for it.
        return self._pick(logits) if self._seen is None else super().choose(logits)

    def _pick(self, logits: Tensor) -> int:
        if self._sampling.temperature != 0:
            if not self._points:
                self._points = torch.rand(
                    _POINTS, generator=self._generator, dtype=torch.float64
                ).tolist()[::-1]
            self._how.point = self._points.pop()
        return chosen(self._kernels.choose(logits, self._how))
