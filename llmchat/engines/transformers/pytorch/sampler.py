"""The next token from logits, in torch.

The order is that of transformers: penalties (see penalties.py), temperature, top-k, top-p, min-p.
"""

import math

import torch
from torch import Tensor

from llmchat.engines import Sampling
from llmchat.engines.guide import Mask
from llmchat.engines.transformers.dry import Dry
from llmchat.engines.transformers.pytorch.penalties import Penalties, penalises
from llmchat.errors import IntegrityError

# The most likely tokens that top-p sorts before it sorts all of them.
_FEW = 512


class Sampler:
    """Chooses the tokens of one answer. `seed` is the one in use, drawn if none was given.

    dry: its state if `sampling` asks for DRY.
    """

    def __init__(
        self,
        sampling: Sampling,
        prompt_ids: list[int],
        device: torch.device,
        dry: Dry | None = None,
    ):
        self._sampling = sampling
        self._generator = torch.Generator(device)
        self.seed = self._generator.seed() & (2**63 - 1) if sampling.seed is None else sampling.seed
        self._generator.manual_seed(self.seed)
        self._penalties: Penalties | None = None
        if penalises(sampling):
            self._penalties = Penalties(sampling, prompt_ids, device, dry)

    def choose(self, logits: Tensor, mask: Mask | None = None) -> int:
        """logits: [vocab] → token id. mask: the tokens that may be chosen, None for all."""
        logits = logits.float()
        if self._penalties is not None:
            logits = self._penalties.apply(logits)
        token = self._pick(logits, mask)
        self.record(token)
        return token

    def record(self, token: int) -> None:
        """Count a token of the answer: one that was chosen here, or that there was no choice of."""
        if self._penalties is not None:
            self._penalties.accept(token)

    def _pick(self, logits: Tensor, mask: Mask | None) -> int:
        """logits: float32 [vocab] → token id."""
        if mask is not None:
            logits = allowed(logits, mask)
        largest, best = logits.max(-1)
        token = chosen(int(best) if math.isfinite(largest) else -1)
        if self._sampling.temperature == 0:
            return token
        return int(self._draw(*candidates(logits, self._sampling)))

    def _draw(self, ids: Tensor | None, probabilities: Tensor) -> Tensor:
        """One token by inverse transform sampling, many times faster than torch.multinomial.

        ids: None for all tokens in their order. probabilities: not necessarily normalised.
        """
        cumulated = probabilities.double().cumsum(-1)
        uniform = torch.rand(
            1, generator=self._generator, dtype=torch.float64, device=probabilities.device
        )
        # To the right of equal sums: a token of probability zero is never drawn.
        place = torch.searchsorted(cumulated, uniform * cumulated[-1], right=True)
        place = place.clamp_(max=len(probabilities) - 1)
        return place if ids is None else ids[place]


def allowed(logits: Tensor, mask: Mask) -> Tensor:
    """The logits with minus infinity for the tokens that are not in a mask."""
    words = torch.frombuffer(mask.words, dtype=torch.int32).to(logits.device)
    bits = words[:, None] >> torch.arange(32, device=logits.device) & 1
    inside = bits.flatten()[: len(logits)].bool()
    outside = torch.nn.functional.pad(~inside, (0, len(logits) - len(inside)), value=True)
    return logits.masked_fill(outside, -torch.inf)


def chosen(token: int) -> int:
    """The token itself. Raises IntegrityError for -1: the logits are NaN or infinite."""
    if token < 0:
        raise IntegrityError(
            "the model answered with NaN or infinity instead of numbers",
            "its weights are damaged, or too large for this kind of --weights;"
            " `llmchat verify` checks the files",
        )
    return token


def probabilities(logits: Tensor, sampling: Sampling) -> Tensor:
    """[vocab] logits → [vocab] probabilities, as `candidates` has them."""
    ids, kept = candidates(logits, sampling)
    if ids is None:
        return kept
    return logits.new_zeros(logits.shape).index_copy(0, ids, kept.to(logits.dtype))


def candidates(logits: Tensor, sampling: Sampling) -> tuple[Tensor | None, Tensor]:
    """The tokens that top-k, top-p and min-p keep, and their probabilities, which sum to 1.

    temperature > 0. None for the ids: all tokens in their order. Top-p sorts only the most likely
    tokens if they suffice, because sorting a vocabulary takes longer than a pass of a small model.
    """
    logits = logits / sampling.temperature
    ids: Tensor | None = None
    if 0 < sampling.top_k < logits.numel():
        logits, ids = logits.topk(sampling.top_k)
    if sampling.top_p < 1:
        order, kept = _nucleus(logits, sampling.top_p)
        ids = order if ids is None else ids[order]
    else:
        kept = logits.softmax(-1)
    if sampling.min_p > 0:
        places = torch.where(kept >= sampling.min_p * kept.max())[0]
        ids, kept = places if ids is None else ids[places], kept[places]
    return ids, kept / kept.sum()


def fixed_size_candidates(logits: Tensor, sampling: Sampling) -> tuple[Tensor | None, Tensor]:
    """As `candidates`, with shapes that do not depend on the numbers.

    So the host does not wait for the device. Probabilities are not normalised; those of excluded
    tokens are 0.
    """
    logits = logits / sampling.temperature
    ids: Tensor | None = None
    if 0 < sampling.top_k < logits.numel():
        logits, ids = logits.topk(sampling.top_k)
    elif sampling.top_p < 1:
        logits, ids = logits.sort(descending=True)
    kept = logits.softmax(-1)
    if sampling.top_p < 1:
        mass_before = kept.cumsum(-1) - kept
        kept = torch.where(mass_before < sampling.top_p, kept, 0.0)
    if sampling.min_p > 0:
        kept = torch.where(kept >= sampling.min_p * kept.max(), kept, 0.0)
    return ids, kept


def _nucleus(logits: Tensor, mass: float) -> tuple[Tensor, Tensor]:
    """The fewest most likely tokens with this probability mass, and their probabilities."""
    total = logits.logsumexp(-1)
    for count in (_FEW, logits.numel()):
        values, order = logits.topk(min(count, logits.numel()))
        sorted_ = (values - total).exp()
        cumulated = sorted_.cumsum(-1)
        if float(cumulated[-1]) >= mass:
            break
    # A token is excluded if those before it already have the mass; the first one always stays.
    kept = cumulated - sorted_ < mass
    return order[kept], sorted_[kept]
