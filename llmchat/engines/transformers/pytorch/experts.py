"""Mixtures of experts in plain torch: which experts a token goes through, and their sum.

The experts of a token are added in the order of their scores for it, so that the order does not
depend on the other tokens of a pass. Routers compute in float32.
"""

from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from llmchat.engines.transformers.families.blocks import Experts
from llmchat.engines.transformers.pytorch.loader import Loader
from llmchat.engines.transformers.pytorch.mlp import TorchMlp


class TorchExperts:
    """[T, hidden] → [T, hidden], see blocks.Experts."""

    def __init__(self, block: Experts, load: Loader):
        self.block = block
        self._choose = Router(block, load)
        self._experts = [TorchMlp(expert, load) for expert in block.experts]
        self._shared = TorchMlp(block.shared, load) if block.shared else None
        gate = block.shared_gate
        self._shared_gate = load.float32(gate.weight) if gate else None
        self._expert_norm, self._expert_post_norm, self._shared_norm, self._shared_post_norm = (
            load.norm(norm) for norm in block.norms[1:]
        )

    def __call__(self, x: Tensor) -> Tensor:
        rows = x if self._expert_norm is None else self._expert_norm(x)
        out = run_chosen(self.block, rows, *self._choose(x), self._run)
        if self._expert_post_norm:
            out = self._expert_post_norm(out)
        return out if self._shared is None else out + self._of_shared(x, self._shared)

    def _run(self, expert: int, rows: Tensor) -> Tensor:
        return self._experts[expert](rows)

    def _of_shared(self, x: Tensor, shared: TorchMlp) -> Tensor:
        out = shared(x if self._shared_norm is None else self._shared_norm(x))
        if self._shared_gate is not None:
            out = out * F.linear(x.float(), self._shared_gate).sigmoid().to(out.dtype)
        return self._shared_post_norm(out) if self._shared_post_norm else out


class Router:
    """[T, hidden] → experts and their weights, see `choose`."""

    def __init__(self, block: Experts, load: Loader):
        self._block = block
        self._weight = load.float32(block.router.weight)
        bias = load.bias([block.router])
        self._bias = None if bias is None else bias.to(self._weight)
        self._norm = load.norm(block.router_norm)
        self._correction, self._scale = (
            load.float32(name) if name else None for name in (block.correction, block.expert_scale)
        )

    def __call__(self, x: Tensor) -> tuple[Tensor, Tensor]:
        rows = x.float() if self._norm is None else self._norm(x.float())
        logits = F.linear(rows, self._weight, self._bias)
        return choose(self._block, logits, self._correction, self._scale)


def choose(
    block: Experts,
    logits: Tensor,
    correction: Tensor | None = None,
    expert_scale: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """logits: float32 [T, experts] of the router. Returns experts and their weights, [T, top],

    the first choice first.
    """
    scores = logits.sigmoid() if block.score == "sigmoid" else logits.softmax(dim=-1)
    chosen = _ranked(block, logits, scores, correction).topk(block.top).indices
    weights = scores.gather(1, chosen)
    if block.score == "softmax_of_top":
        weights = logits.gather(1, chosen).softmax(dim=-1)
    if block.normalised:
        weights = weights / (weights.sum(dim=-1, keepdim=True) + block.sum_offset)
    weights = weights * block.factor
    return chosen, weights if expert_scale is None else weights * expert_scale[chosen]


def _ranked(block: Experts, logits: Tensor, scores: Tensor, correction: Tensor | None) -> Tensor:
    """What experts are chosen by, [T, experts]."""
    if correction is None and block.groups == 1:
        # Scores grow with logits, but can be equal where logits are not.
        return logits
    ranked = scores if correction is None else scores + correction.flatten()
    if block.groups == 1:
        return ranked
    grouped = ranked.unflatten(1, (block.groups, -1))  # [T, groups, experts of a group]
    ratings = grouped.topk(block.group_members).values.sum(dim=-1)
    best = torch.zeros_like(ratings, dtype=torch.bool)
    best.scatter_(1, ratings.topk(block.top_groups).indices, True)
    return grouped.masked_fill(~best[..., None], -torch.inf).flatten(1)


def run_chosen(
    block: Experts,
    x: Tensor,
    chosen: Tensor,
    weights: Tensor,
    run: Callable[[int, Tensor], Tensor],
) -> Tensor:
    """The weighted sum of the chosen experts' results, [T, hidden] of the type of x.

    x: [T, hidden] → run(number of an expert, its rows) [rows, hidden].
    """
    rows, top = chosen.shape
    results = torch.empty(rows * top, x.shape[1], dtype=x.dtype, device=x.device)
    for expert, slots in _slots_by_expert(chosen, len(block.experts)):
        own = x[slots // top]
        if block.weights_input:
            own = own * weights.flatten()[slots, None].to(x.dtype)
        results[slots] = run(expert, own)
    results = results.view(rows, top, -1)
    if block.weights_input:
        return results.sum(dim=1)
    return (results.float() * weights[..., None]).sum(dim=1).to(x.dtype)


def _slots_by_expert(chosen: Tensor, experts: int) -> Iterator[tuple[int, Tensor]]:
    """Each expert that was chosen, with the numbers of its entries in `chosen`."""
    flat = chosen.flatten()
    order = flat.argsort(stable=True)
    counts = flat.bincount(minlength=experts).tolist()
    for expert, slots in enumerate(order.split(counts)):
        if len(slots):
            yield expert, slots
