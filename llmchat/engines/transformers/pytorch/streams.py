"""The blocks of Gemma 3n in torch: several streams a token, and residuals of low rank.

What these blocks return is added to x, the first stream; they change the others in the pass.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from llmchat.engines.transformers.families import blocks
from llmchat.engines.transformers.pytorch.loader import Loader
from llmchat.engines.transformers.pytorch.passes import Pass

# The least mean square that a projection is scaled from, as in transformers.
_LEAST = 1e-5


class TorchLaurel:
    """See blocks.Laurel. [T, hidden] → [T, hidden]"""

    def __init__(self, block: blocks.Laurel, load: Loader):
        self._down, self._up = load.joined([block.down]), load.joined([block.up])
        self._norm = load.norm(block.norm)

    def __call__(self, x: Tensor) -> Tensor:
        out: Tensor = self._up(self._down(x))
        return x + (out if self._norm is None else self._norm(out))


class TorchOpenStreams:
    """See blocks.OpenStreams."""

    def __init__(self, block: blocks.OpenStreams, load: Loader):
        self._projections = [load.joined([linear]) for linear in block.projections]

    def __call__(self, x: Tensor, batch: Pass) -> Tensor:
        others = [_like(x, projection(x)) for projection in self._projections]
        batch.streams = torch.stack([x, *others])
        return x.new_zeros(())


class TorchMixStreams:
    """See blocks.MixStreams."""

    def __init__(self, block: blocks.MixStreams, load: Loader):
        self._corrects = block.corrects
        self._norm = load.norm(block.norm)
        self._router = load.float32(block.router.weight)
        self._coefficients = load.float32(block.coefficients.weight)

    def __call__(self, x: Tensor, batch: Pass) -> Tensor:
        rows = x.float() if self._norm is None else self._norm(x.float())
        modalities = F.linear(rows, self._router).tanh()
        coefficients = F.linear(modalities, self._coefficients).to(x.dtype)  # [T, out]
        return (self._correct if self._corrects else self._predict)(x, coefficients, batch)

    def _predict(self, x: Tensor, coefficients: Tensor, batch: Pass) -> Tensor:
        batch.streams[0] = x
        mixes = coefficients.unflatten(1, (len(batch.streams), -1))  # [T, of, from]
        change = torch.einsum("tij,jth->ith", mixes, batch.streams)
        batch.streams = batch.streams + change
        return change[0]

    def _correct(self, x: Tensor, coefficients: Tensor, batch: Pass) -> Tensor:
        news, parts = x - batch.streams[0], coefficients.T[..., None]  # [streams, T, 1]
        batch.streams[1:] += (parts[1:] + 1) * news
        return parts[0] * news


class TorchJoinStreams:
    """See blocks.JoinStreams."""

    def __init__(self, block: blocks.JoinStreams, load: Loader):
        self._projections = [load.joined([linear]) for linear in block.projections]

    def __call__(self, x: Tensor, batch: Pass) -> Tensor:
        pairs = zip(self._projections, batch.streams[1:], strict=True)
        streams = [x, *(_like(x, projection(stream)) for projection, stream in pairs)]
        return torch.stack(streams).mean(dim=0) - x


def _like(x: Tensor, y: Tensor) -> Tensor:
    """y with the root mean square of x, row by row."""
    wanted = x.square().mean(dim=-1, keepdim=True).sqrt()
    return y * wanted / y.square().mean(dim=-1, keepdim=True).clamp(min=_LEAST).sqrt()
