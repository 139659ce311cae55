"""Recurrent blocks in torch. Their states are float32, and change in place.

The reference is transformers' modules; sums over the tokens of a chunk are taken at once, as in
Yang et al. 2024 and Dao & Gu 2024, so that a prompt takes a few operations per chunk.
"""

from collections.abc import Callable, Sequence
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from llmchat.engines.transformers.families import blocks
from llmchat.engines.transformers.families.blocks import Heads, Linear, Norm
from llmchat.engines.transformers.pytorch.recurrent_scan import convolve, scan, scan_channels


class Loader(Protocol):
    """Brings the tensors of a block to its device."""

    def joined(self, linears: Sequence[Linear]) -> nn.Module:
        """One layer whose outputs are those of all of them, side by side."""
        ...

    def float32(self, name: str) -> Tensor: ...


class Mixer:
    """A block whose output linear reads what `mix` makes of each text."""

    inputs: nn.Module
    output: nn.Module

    def __call__(self, x: Tensor, counts: Sequence[int], states: Sequence[Tensor]) -> Tensor:
        """x: [R, hidden], the new rows of several texts, `counts` of each. states: of each text,
        flat, see cache_shapes; they become those after its rows. Returns [R, hidden].
        """
        parts = self.inputs(x).float().split(list(counts))
        mixed = [self.mix(part, state) for part, state in zip(parts, states, strict=True)]
        out: Tensor = self.output(torch.cat(mixed).to(x.dtype))
        return out

    def mix(self, rows: Tensor, state: Tensor) -> Tensor:
        raise NotImplementedError


class WithLowRanks(nn.Module):
    """Linears, and pairs of them, of the same input: their outputs side by side."""

    def __init__(self, block: blocks.DeltaNet, load: Loader):
        super().__init__()
        self._plain = load.joined(block.inputs)
        pairs = zip(block.low, block.high, strict=True)
        self._pairs = [(load.joined([low]), load.joined([high])) for low, high in pairs]

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat((self._plain(x), *(high(low(x)) for low, high in self._pairs)), dim=-1)


class DeltaNet(Mixer):
    def __init__(self, block: blocks.DeltaNet, load: Loader):
        self.inputs = WithLowRanks(block, load) if block.low else load.joined(block.inputs)
        self.output = load.joined([block.output])
        self._block = block
        self._convolution = load.float32(block.convolution)[:, 0]
        self._rate = load.float32(block.log_decay).exp().repeat_interleave(block.decay.width)
        self._time_bias = load.float32(block.time_bias)
        self._norm = _norm(block.norm, load)
        self._gate = F.silu if block.gate_activation == "silu" else torch.sigmoid
        device = self._rate.device
        mixed = (block.queries, block.keys, block.values)
        self._mixed = torch.cat([columns(heads) for heads in mixed]).to(device)
        self._gates, self._beta, self._decay = (
            columns(heads).to(device) for heads in (block.gates, block.beta, block.decay)
        )

    def mix(self, rows: Tensor, state: Tensor) -> Tensor:
        queries, values = self._block.queries, self._block.values
        sizes = queries.count * queries.width, values.count * values.width
        channels, kept = len(self._mixed), self._block.kernel - 1
        before = state[: channels * kept].view(kept, channels)
        matrix = state[channels * kept :].view(values.count, queries.width, values.width)
        mixed = F.silu(convolve(rows[:, self._mixed], before, self._convolution))
        q, k, v = mixed.split((sizes[0], sizes[0], sizes[1]), dim=1)
        q, k = (self._unit_heads(part) for part in (q, k))
        decay = -self._rate * F.softplus(rows[:, self._decay] + self._time_bias)
        v = v.unflatten(1, (values.count, -1)).transpose(0, 1)
        beta = rows[:, self._beta].sigmoid().T
        q = q * queries.width**-0.5
        if self._block.decays_by_channel:
            decay = decay.unflatten(1, (values.count, -1)).transpose(0, 1)
            some = k * beta[..., None]
            out = scan_channels((q, decay, k * decay.exp(), some, some, v), matrix)
        else:
            out = scan(q, k, v, decay.T, matrix, beta)
        gates = rows[:, self._gates].unflatten(1, (values.count, -1))
        return (self._norm(out.transpose(0, 1)) * self._gate(gates)).flatten(1)

    def _unit_heads(self, part: Tensor) -> Tensor:
        """[T, heads * width] → [heads of values, T, width] of length 1, as FLA divides them."""
        keys, values = self._block.queries.count, self._block.values.count
        heads = part.unflatten(1, (keys, -1)).transpose(0, 1)
        heads = heads * torch.rsqrt(heads.square().sum(-1, keepdim=True) + 1e-6)
        return heads.repeat_interleave(values // keys, dim=0)


class Mamba2(Mixer):
    def __init__(self, block: blocks.Mamba2, load: Loader):
        self.inputs, self.output = load.joined([block.input]), load.joined([block.output])
        self._block = block
        self._convolution = load.float32(block.convolution)[:, 0].clone()
        bias = block.convolution_bias
        self._convolution_bias = load.float32(bias) if bias else None
        self._rate = load.float32(block.log_decay).exp()
        self._time_bias = load.float32(block.time_bias)
        self._skip = load.float32(block.skip)
        self._norm = _norm(block.norm, load) if block.norm else None
        inner, shared = block.heads * block.width, block.groups * block.state
        self._sizes = [inner, inner, shared, shared, block.heads]
        # Convolutions are linear: the factors of what they read can be theirs.
        factors = torch.tensor(block.factors[1:4]).repeat_interleave(torch.tensor(self._sizes[1:4]))
        self._convolution *= factors.to(self._rate.device)[:, None]

    def mix(self, rows: Tensor, state: Tensor) -> Tensor:
        block = self._block
        inner, _, shared, _, heads = self._sizes
        channels, kept = inner + 2 * shared, block.kernel - 1
        before = state[: channels * kept].view(kept, channels)
        matrix = state[channels * kept :].view(heads, block.state, block.width)
        gate, mixed, time = rows.split((inner, channels, heads), dim=1)
        mixed = F.silu(convolve(mixed, before, self._convolution, self._convolution_bias))
        x, b, c = mixed.split((inner, shared, shared), dim=1)
        x = x.unflatten(1, (heads, -1)).transpose(0, 1)  # [heads, T, width]
        time = (
            F.softplus(time * block.factors[4] + self._time_bias).clamp(*block.time_limits).T
        )  # [heads, T]
        decay = -self._rate[:, None] * time
        out = scan(self._per_head(c), self._per_head(b), x * time[..., None], decay, matrix)
        out = (out + self._skip[:, None, None] * x).transpose(0, 1).flatten(1)
        return self._gated(out, F.silu(gate * block.factors[0]))

    def _per_head(self, part: Tensor) -> Tensor:
        """[T, groups * state] → [heads, T, state]"""
        groups = part.unflatten(1, (self._block.groups, -1)).transpose(0, 1)
        return groups.repeat_interleave(self._block.heads // self._block.groups, dim=0)

    def _gated(self, out: Tensor, gate: Tensor) -> Tensor:
        if self._norm is None:
            return out * gate
        return self._norm(out) * gate if self._block.gate_after else self._norm(out * gate)


class ShortConvolution(Mixer):
    def __init__(self, block: blocks.ShortConvolution, load: Loader):
        self.inputs, self.output = load.joined([block.input]), load.joined([block.output])
        self._convolution = load.float32(block.convolution)[:, 0]
        bias = block.convolution_bias
        self._bias = load.float32(bias) if bias else None

    def mix(self, rows: Tensor, state: Tensor) -> Tensor:
        b, c, x = rows.chunk(3, dim=1)
        before = state.view(-1, x.shape[1])
        return c * convolve(b * x, before, self._convolution, self._bias)


def columns(heads: Heads) -> Tensor:
    """The numbers of a row that the heads have, in the order of heads."""
    begins = torch.tensor([heads.begin(head) for head in range(heads.count)])
    return (begins[:, None] + torch.arange(heads.width)).flatten()


def _norm(norm: Norm, load: Loader) -> Callable[[Tensor], Tensor]:
    """An RMS norm of the last dimension, or of groups of it."""
    assert norm.kind == "rms" and norm.weight is not None
    weight = (load.float32(norm.weight) + norm.offset) * norm.scale
    width = norm.group or norm.width

    def normed(x: Tensor) -> Tensor:
        groups = x.unflatten(-1, (-1, width))
        return F.rms_norm(groups, (width,), None, norm.epsilon).flatten(-2) * weight

    return normed
