"""An encoder as a list of blocks, and how a batch runs through it."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from llmchat.engines.transformers.embedding.linear import Linear, activated
from llmchat.engines.transformers.embedding.packed import Packed, attend

Norm = Callable[[Tensor], Tensor]
Mixer = Callable[[Tensor, "Run"], Tensor]


def same(x: Tensor) -> Tensor:
    """No norm."""
    return x


@dataclass(frozen=True)
class LayerNorm:
    """weight, bias: [width]."""

    weight: Tensor
    bias: Tensor | None
    eps: float

    def __call__(self, x: Tensor) -> Tensor:
        return F.layer_norm(x, self.weight.shape, self.weight, self.bias, self.eps)


@dataclass(frozen=True)
class RmsNorm:
    """weight: [width], the factor itself."""

    weight: Tensor
    eps: float

    def __call__(self, x: Tensor) -> Tensor:
        return F.rms_norm(x, self.weight.shape, self.weight, self.eps)


class Run:
    """One batch on its way: what its blocks share."""

    def __init__(self, packed: Packed):
        self.packed = packed
        self._masks: dict[tuple[bool, int], Tensor | None] = {}
        self._angles: dict[tuple[float, int], tuple[Tensor, Tensor]] = {}

    def mask(self, causal: bool, window: int) -> Tensor | None:
        key = causal, window
        if key not in self._masks:
            self._masks[key] = self.packed.mask(causal=causal, window=window)
        return self._masks[key]

    def angles(self, theta: float, width: int) -> tuple[Tensor, Tensor]:
        """Cosines and sines [T, 1, width] of the rotary positions."""
        key = theta, width
        if key not in self._angles:
            powers = theta ** (torch.arange(0, width, 2).float() / width)
            turns = self.packed.positions[:, None].float() / powers
            both = torch.cat((turns, turns), -1)[:, None]
            self._angles[key] = both.cos(), both.sin()
        return self._angles[key]


@dataclass(frozen=True)
class Attention:
    """theta: of the rotary positions; 0 for none. window: see `Packed.mask`."""

    qkv: Linear
    out: Linear
    heads: int
    kv_heads: int
    scale: float
    q_norm: Norm = same
    k_norm: Norm = same
    theta: float = 0
    causal: bool = False
    window: int = 0

    def __call__(self, x: Tensor, run: Run) -> Tensor:
        width = self.qkv.rows // (self.heads + 2 * self.kv_heads)
        parts = self.qkv(x).view(len(x), -1, width)
        q, k, v = parts.split((self.heads, self.kv_heads, self.kv_heads), 1)
        q, k = self.q_norm(q), self.k_norm(k)
        if self.theta:
            cos, sin = run.angles(self.theta, width)
            q, k = _rotated(q, cos, sin), _rotated(k, cos, sin)
        mask = run.mask(self.causal, self.window)
        return self.out(attend(run.packed, q, k, v, self.scale, mask))


def _rotated(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    left, right = x.chunk(2, -1)
    return x * cos + torch.cat((-right, left), -1) * sin


@dataclass(frozen=True)
class Mlp:
    """gated: `up` makes the gate and the values, one after the other."""

    up: Linear
    down: Linear
    activation: str
    gated: bool = False

    def __call__(self, x: Tensor, run: Run) -> Tensor:
        if not self.gated:
            return self.down(self.up(x, self.activation))
        gate, values = self.up(x).chunk(2, -1)
        return self.down(activated(gate, self.activation) * values)


@dataclass(frozen=True)
class Block:
    """x → last(x + after(mixer(before(x))))."""

    mixer: Mixer
    before: Norm = same
    after: Norm = same
    last: Norm = same

    def __call__(self, x: Tensor, run: Run) -> Tensor:
        return self.last(x + self.after(self.mixer(self.before(x), run)))


@dataclass(frozen=True)
class Encoder:
    """embed: tokens to vectors [T, width]. norm: after the last block."""

    embed: Callable[[Packed], Tensor]
    blocks: tuple[Block, ...]
    width: int
    norm: Norm = same

    def hidden(self, packed: Packed) -> Tensor:
        """The vector of each token, without fillers: [packed.size, width]."""
        run = Run(packed)
        x = self.embed(packed)
        for block in self.blocks:
            x = block(x, run)
        return self.norm(x[: packed.size])
