"""Sampling in C (csrc/sampling.h).

A pass of a small model takes little longer than torch needs to sample from its vocabulary.
"""

import torch
from torch import Tensor

from llmchat.engines import Sampling
from llmchat.engines.guide import Mask
from llmchat.engines.transformers.compiled.kernels import Kernels
from llmchat.engines.transformers.compiled.structs import SamplingParams
from llmchat.engines.transformers.dry import Dry
from llmchat.engines.transformers.pytorch.sampler import Sampler, chosen
from llmchat.settings.sampling import DISTRIBUTION

# Random numbers drawn at a time; they are the same as when drawn one by one.
_POINTS = 64


class CompiledSampler(Sampler):
    """Chooses the same tokens as `Sampler`, up to rounding."""

    def __init__(
        self,
        sampling: Sampling,
        prompt_ids: list[int],
        device: torch.device,
        kernels: Kernels,
        dry: Dry | None = None,
    ):
        super().__init__(sampling, prompt_ids, device, dry)
        self._kernels = kernels
        self._points: list[float] = []
        self._params = SamplingParams(*(getattr(sampling, name) for name in DISTRIBUTION))

    def choose(self, logits: Tensor, mask: Mask | None = None) -> int:
        # Each call into torch hands the interpreter's lock to other threads (a server's) and waits
        # for it again. Without penalties no call is needed.
        if self._penalties is None:
            return self._pick(logits, mask)
        return super().choose(logits, mask)

    def _pick(self, logits: Tensor, mask: Mask | None) -> int:
        if self._sampling.temperature != 0:
            self._params.point = self._next_point()
        return chosen(self._kernels.sample(logits, self._params, mask))

    def _next_point(self) -> float:
        if not self._points:
            drawn = torch.rand(_POINTS, generator=self._generator, dtype=torch.float64)
            self._points = drawn.tolist()[::-1]
        return self._points.pop()
