"""What blocks are made of (blocks.py): norms, linears, rotary embeddings, and where heads lie."""

from dataclasses import dataclass
from typing import Literal

from torch import Tensor

Activation = Literal["silu", "gelu", "gelu_tanh", "relu", "relu2", "xielu", "clamped_swiglu"]


@dataclass(frozen=True)
class Norm:
    """A norm of each `group` of the `width` numbers of a row; 0: of all of them together.

    rms: x / rms(x) * (weight + offset) (Zhang & Sennrich 2019); layer: the same of x - mean, plus
    bias (Ba et al. 2016); l2: as rms, without a weight. weight, bias: names of tensors of `width`
    numbers, or of `group` numbers that all groups share; None where there is none. scale: a factor
    of the result.
    """

    width: int
    epsilon: float
    weight: str | None
    bias: str | None = None
    kind: Literal["rms", "layer"] = "rms"
    group: int = 0
    offset: float = 0.0
    scale: float = 1.0


@dataclass(frozen=True)
class Linear:
    """y = W x, plus a bias where the checkpoint has one: `module`.weight [out, in], `module`.bias.

    module: also its name in adapters. first, of: it is rows [first, first + out) of a weight of
    `of` rows; of = 0: the whole weight.
    """

    module: str
    out: int
    in_: int
    first: int = 0
    of: int = 0

    @property
    def weight(self) -> str:
        return f"{self.module}.weight"

    @property
    def bias(self) -> str:
        return f"{self.module}.bias"

    @property
    def shape(self) -> tuple[int, int]:
        """[out, in] of the whole weight."""
        return self.of or self.out, self.in_


@dataclass(frozen=True, eq=False)
class Rotary:
    """Rotary embedding (Su et al. 2021) of 2 * len(frequencies) numbers of a head from `first` on.

    interleaved: pairs are neighbours, instead of halves apart. scale: a factor of cosines and sines
    (YaRN). long, trained: beyond `trained` tokens a text has the frequencies `long` at all of its
    positions, with `long_scale` (LongRoPE). counts: the positions of a text; or those of its
    context, at whose last one the answer stands; or those of the answer, from 1 on, before which
    the context stands at 0 (GLM, see Plan.answer_start).
    """

    frequencies: Tensor
    interleaved: bool = False
    first: int = 0
    scale: float = 1.0
    long: Tensor | None = None
    long_scale: float = 1.0
    trained: int = 0
    counts: Literal["all", "context", "answer"] = "all"

    @property
    def width(self) -> int:
        return 2 * len(self.frequencies)


@dataclass(frozen=True)
class Heads:
    """Where heads lie in a row: head h begins at

    start + h // together * stride_of_groups + h % together * stride, and has `width` numbers.
    together = 0: all of them are one group.
    """

    count: int
    width: int
    start: int
    stride: int
    together: int = 0
    stride_of_groups: int = 0

    def begin(self, head: int) -> int:
        group, within = divmod(head, self.together or self.count)
        return self.start + group * self.stride_of_groups + within * self.stride


@dataclass(frozen=True)
class PositionScale:
    """A factor of queries that grows with the position p: 1 + beta * log(1 + p // length), of
    p + shift (Llama 4: shift 1; Ministral 3: 0).
    """

    beta: float
    length: float
    shift: int = 0
