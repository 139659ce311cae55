"""The next token from logits. The order is that of transformers: repetition penalty, temperature, top-k, top-p, min-p."""

import math

import torch
from torch import Tensor

from llmchat.engines import Sampling
from llmchat.errors import IntegrityError

# The likeliest tokens that top-p looks at before it looks at all of them.
_FEW = 512


class Sampler:
    """Chooses tokens for one answer. `seed` is the one in use, drawn when none was given."""

    def __init__(self, sampling: Sampling, prompt_ids: list[int], device: torch.device):
        self._sampling = sampling
        self._generator = torch.Generator(device)
        self.seed = self._generator.seed() & (2**63 - 1) if sampling.seed is None else sampling.seed
        self._generator.manual_seed(self.seed)
        self._seen = (
            torch.tensor(sorted(set(prompt_ids)), dtype=torch.long, device=device)
            if sampling.repetition_penalty != 1
            else None
        )

    def choose(self, logits: Tensor) -> int:
        """logits: [vocab] → token id."""
        logits = logits.float()
        if self._seen is not None:
            logits = _penalise(logits, self._seen, self._sampling.repetition_penalty)
        token = self._pick(logits)
        if self._seen is not None:
            self._seen = torch.cat((self._seen, self._seen.new_tensor([token])))
        return token

    def _pick(self, logits: Tensor) -> int:
        """logits: float32 [vocab] → token id."""
        most, likeliest = logits.max(-1)
        token = chosen(int(likeliest) if math.isfinite(most) else -1)
        if self._sampling.temperature == 0:
            return token
        return self._draw(*candidates(logits, self._sampling))

    def _draw(self, ids: Tensor | None, chances: Tensor) -> int:
        """Inverse transform: on a large vocabulary many times faster than torch.multinomial."""
        reached = chances.double().cumsum(-1)
        point = (
            torch.rand(1, generator=self._generator, dtype=torch.float64, device=chances.device)
            * reached[-1]
        )
        place = torch.searchsorted(reached, point, right=True).clamp_(max=len(chances) - 1)
        return int(place if ids is None else ids[place])


def chosen(token: int) -> int:
    """The token that was chosen. Raises IntegrityError for -1: none could be, for the logits are no numbers."""
    if token < 0:
        raise IntegrityError(
            "the model answered with NaN or infinity instead of numbers",
            "its weights are damaged, or too large for this kind of --weights; `llmchat verify` checks the files",
        )
    return token


def probabilities(logits: Tensor, sampling: Sampling) -> Tensor:
    """[vocab] logits → [vocab] probabilities after temperature, top-k, top-p and min-p; temperature > 0."""
    ids, chances = candidates(logits, sampling)
    return (
        logits.new_zeros(logits.shape).index_copy(0, ids, chances.to(logits.dtype))
        if ids is not None
        else chances
    )


def candidates(logits: Tensor, sampling: Sampling) -> tuple[Tensor | None, Tensor]:
    """The tokens that may come and their probabilities, which sum to 1; None for the ids where every token may.

    Sorting a whole vocabulary takes longer than a small model's pass, and top-p needs the likeliest few alone: they are looked for first.
    """
    logits = logits / sampling.temperature
    ids: Tensor | None = None
    if 0 < sampling.top_k < logits.numel():
        logits, ids = logits.topk(sampling.top_k)
    if sampling.top_p < 1:
        order, chances = _nucleus(logits, sampling.top_p)
        ids = order if ids is None else ids[order]
    else:
        chances = logits.softmax(-1)
    if sampling.min_p > 0:
        kept = torch.where(chances >= sampling.min_p * chances.max())[0]
        ids, chances = kept if ids is None else ids[kept], chances[kept]
    return ids, chances / chances.sum()


def fixed_size_candidates(logits: Tensor, sampling: Sampling) -> tuple[Tensor | None, Tensor]:
    """As `candidates`, with shapes that do not depend on the numbers, for a device that the host does not wait for.

    Probabilities are not normalised; those of excluded tokens are 0. None for the ids: all tokens in their order.
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


def _nucleus(logits: Tensor, share: float) -> tuple[Tensor, Tensor]:
    """The likeliest tokens that make up `share` of the probability, the last one reaching over it, and their probabilities (not normalised)."""
    total = logits.logsumexp(-1)
    for count in (_FEW, logits.numel()):
        values, order = logits.topk(min(count, logits.numel()))
        chances = (values - total).exp()
        reached = chances.cumsum(-1)
        if float(reached[-1]) >= share:
            break
    # A token goes when those before it already make up the share; the first one always stays.
    kept = reached - chances < share
    return order[kept], chances[kept]


def _penalise(logits: Tensor, seen: Tensor, penalty: float) -> Tensor:
    """Keskar et al. 2019 (CTRL): divide positive logits of tokens that were seen, multiply negative ones."""
    scores = logits[seen]
    return logits.index_copy(0, seen, torch.where(scores > 0, scores / penalty, scores * penalty))
