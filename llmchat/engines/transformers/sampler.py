"""The next token from logits. The order is that of transformers: repetition penalty, temperature, top-k, top-p, min-p."""

import torch
from torch import Tensor

from llmchat.engines import Sampling


class Sampler:
    """Chooses tokens for one answer. `seed` is the one in use, drawn when none was given."""

    def __init__(self, sampling: Sampling, prompt_ids: list[int], device: torch.device):
        self._sampling = sampling
        self._generator = torch.Generator(device)
        self.seed = self._generator.seed() & (2**63 - 1) if sampling.seed is None else sampling.seed
        self._generator.manual_seed(self.seed)
        self._seen = torch.tensor(sorted(set(prompt_ids)), dtype=torch.long, device=device) if sampling.repetition_penalty != 1 else None

    def choose(self, logits: Tensor) -> int:
        """logits: [vocab] → token id."""
        logits = logits.float()
        if self._seen is not None:
            logits = _penalise(logits, self._seen, self._sampling.repetition_penalty)
        if self._sampling.temperature == 0:
            token = int(logits.argmax())
        else:
            token = int(torch.multinomial(probabilities(logits, self._sampling), 1, generator=self._generator))
        if self._seen is not None:
            self._seen = torch.cat((self._seen, self._seen.new_tensor([token])))
        return token


def probabilities(logits: Tensor, sampling: Sampling) -> Tensor:
    """[vocab] logits → [vocab] probabilities after temperature, top-k, top-p and min-p; temperature > 0."""
    logits = logits / sampling.temperature
    if 0 < sampling.top_k < logits.numel():
        logits = logits.masked_fill(logits < logits.topk(sampling.top_k).values[-1], -torch.inf)
    if sampling.top_p < 1:
        ordered, order = logits.softmax(-1).sort(descending=True)
        # A token goes when those before it already make up top_p; the first one always stays.
        beyond = ordered.cumsum(-1) - ordered >= sampling.top_p
        logits = logits.index_fill(0, order[beyond], -torch.inf)
    chances = logits.softmax(-1)
    if sampling.min_p > 0:
        chances = chances.masked_fill(chances < sampling.min_p * chances.max(), 0.0)
        chances = chances / chances.sum()
    return chances


def _penalise(logits: Tensor, seen: Tensor, penalty: float) -> Tensor:
    """Keskar et al. 2019 (CTRL): divide positive logits of tokens that were seen, multiply negative ones."""
    scores = logits[seen]
    return logits.index_copy(0, seen, torch.where(scores > 0, scores / penalty, scores * penalty))
