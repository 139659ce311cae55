"""The kinds of blocks that a plan is made of, see plan.py.

Blocks name tensors and hold numbers; no tensor is read here. Widths count the numbers of a row of
activations.
"""

from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from llmchat.engines.transformers.families.distance import DistanceBias

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
    positions, with `long_scale` (LongRoPE).
    """

    frequencies: Tensor
    interleaved: bool = False
    first: int = 0
    scale: float = 1.0
    long: Tensor | None = None
    long_scale: float = 1.0
    trained: int = 0

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


@dataclass(frozen=True)
class Attention:
    """Attention. The outputs of `inputs`, side by side, are a row that holds all heads.

    sees: a query sees the positions before it and its own; all of a text, which is read at once and
    whose keys and values are not kept (an encoder); or what block `shares`, a Memory, has written.

    values may be where keys are: they are taken before the keys are normed and rotated. gates: as
    many as queries; the result of a head is multiplied with their sigmoid. norms_rotated: queries
    and keys are normed after the rotary embedding. window: positions that a query sees, itself
    included; chunk: it sees those of its own chunk of so many; 0: all. softcap: scores become
    softcap * tanh(score / softcap). sinks: a tensor [heads] of scores that take weight and give no
    value. slopes: ALiBi, [heads] (Press et al. 2022). distance_bias: added to scores, as slopes.
    clip: queries, keys and values are clamped to it. shares: the number of the block (in the whole
    plan) whose keys and values are used; then `keys` and `values` say only their sizes.
    """

    inputs: tuple[Linear, ...]
    output: Linear
    queries: Heads
    keys: Heads
    values: Heads
    scale: float
    gates: Heads | None = None
    query_norm: Norm | None = None
    key_norm: Norm | None = None
    value_norm: Norm | None = None
    norms_rotated: bool = False
    rotary: Rotary | None = None
    position_scale: PositionScale | None = None
    window: int = 0
    chunk: int = 0
    softcap: float = 0.0
    sinks: str | None = None
    slopes: Tensor | None = None
    clip: float = 0.0
    shares: int | None = None
    sees: Literal["before", "all", "memory"] = "before"
    distance_bias: DistanceBias | None = None


@dataclass(frozen=True)
class Memory:
    """Keys and values of an encoder's rows, for one attention of a decoder. It adds nothing to the
    rows. inputs: for keys and for values; their outputs, side by side, hold all heads.
    """

    inputs: tuple[Linear, Linear]
    keys: Heads
    values: Heads


@dataclass(frozen=True)
class LatentAttention:
    """Multi-head latent attention (DeepSeek-V2, 2024). queries: one linear, or two with a norm.

    A head of queries and keys has `plain` numbers, then those of `rotary`, which begins there. All
    heads share the rotary part of keys, the outputs of `turning`. down: the latent numbers; up of
    them, normed → for each head `plain` numbers of keys, then `value_width` of values.
    """

    queries: tuple[Linear, ...]
    query_norm: Norm | None
    down: Linear
    turning: Linear
    latent_norm: Norm
    up: Linear
    output: Linear
    heads: int
    plain: int
    value_width: int
    latent: int
    rotary: Rotary
    scale: float


@dataclass(frozen=True)
class Mlp:
    """output(act(up(x))), or output(act(gate(x)) * up(x)) with inputs (gate, up).

    xielu: two tensors, alpha_p and alpha_n (Apertus). clamped_swiglu: gate <= limit,
    |up| <= limit, gate * sigmoid(alpha * gate) * (up + 1) (gpt-oss). gate_scale: a factor of
    gate(x) (Falcon-H1).
    """

    inputs: tuple[Linear, ...]
    output: Linear
    activation: Activation
    limit: float = 0.0
    alpha: float = 1.0
    parameters: tuple[str, ...] = ()
    gate_scale: float = 1.0


@dataclass(frozen=True)
class Experts:
    """A mixture of experts, all of one shape: each token goes through `top` of them.

    router: its weight stays in float32. score: softmax of all logits, or of the chosen ones, or
    sigmoid. correction: a tensor of as many numbers as experts, added to the scores for choosing
    only; without it and without groups the largest logits are chosen. groups: experts are chosen
    within the `top_groups` best of so many groups, rated by the sum of their `group_members` best
    scores. normalised: the weights of the chosen are divided by their sum + sum_offset. factor: of
    the weights; expert_scale: a tensor [experts], further factors of them. weights_input: the
    weight multiplies what an expert reads, not its result. shared: an MLP that every token goes
    through, times sigmoid(shared_gate) if there is one.

    router_norm: of what the router reads. expert_norm, shared_norm: of what experts and the shared
    MLP read; expert_post_norm, shared_post_norm: of their results, before these are added (Gemma 4,
    whose step has no norm of its own). None: the input or the result as it is.
    """

    router: Linear
    experts: tuple[Mlp, ...]
    top: int
    score: Literal["softmax", "softmax_of_top", "sigmoid"] = "softmax"
    correction: str | None = None
    groups: int = 1
    top_groups: int = 1
    group_members: int = 2
    normalised: bool = False
    sum_offset: float = 0.0
    factor: float = 1.0
    expert_scale: str | None = None
    weights_input: bool = False
    shared: Mlp | None = None
    shared_gate: Linear | None = None
    router_norm: Norm | None = None
    expert_norm: Norm | None = None
    expert_post_norm: Norm | None = None
    shared_norm: Norm | None = None
    shared_post_norm: Norm | None = None

    @property
    def norms(self) -> tuple[Norm | None, ...]:
        """Those of the block itself."""
        experts = self.expert_norm, self.expert_post_norm
        return (self.router_norm, *experts, self.shared_norm, self.shared_post_norm)


@dataclass(frozen=True)
class DeltaNet:
    """Gated DeltaNet (Yang et al. 2024): a state S [heads of values, key width, value width].

    The outputs of `inputs`, side by side, hold queries, keys, values, gates (z), beta and decay, of
    which the last two are one number a head of values. convolution: a tensor [channels, 1, kernel]
    over queries, keys and values in that order, then silu. Queries and keys are divided by their
    length, queries by sqrt(key width) too; consecutive heads of values share a head of keys. Then
    S *= exp(-exp(log_decay) * softplus(decay + time_bias)), S += k (sigmoid(beta) * (v - k S)), and
    the result is q S. log_decay, time_bias: tensors [value heads]. norm: of each head of the
    result, times silu(gate).
    """

    inputs: tuple[Linear, ...]
    output: Linear
    queries: Heads
    keys: Heads
    values: Heads
    gates: Heads
    beta: Heads
    decay: Heads
    convolution: str
    kernel: int
    log_decay: str
    time_bias: str
    norm: Norm


@dataclass(frozen=True)
class Mamba2:
    """Mamba-2 (Dao & Gu 2024): a state h [heads, state width, head width].

    The outputs of `input`: gate and x [heads * width], B and C [groups * state], dt [heads], in
    that order; `factors`: of each of these five. convolution: over x, B and C, [channels, 1,
    kernel], then silu. t = softplus(dt + time_bias) within time_limits;
    h = exp(-exp(log_decay) * t) * h + B (t * x), and the result is C h + skip * x. norm: of the
    result times silu(gate), or, gate_after, times silu(gate) after the norm; None: no norm.
    log_decay, time_bias, skip: tensors [heads].
    """

    input: Linear
    output: Linear
    heads: int
    width: int
    state: int
    groups: int
    convolution: str
    convolution_bias: str | None
    kernel: int
    log_decay: str
    time_bias: str
    skip: str
    norm: Norm | None
    gate_after: bool = False
    factors: tuple[float, float, float, float, float] = (1.0, 1.0, 1.0, 1.0, 1.0)
    time_limits: tuple[float, float] = (0.0, float("inf"))


@dataclass(frozen=True)
class ShortConvolution:
    """A gated causal convolution (LFM2): outputs of `input` are B, C and x [width each];
    output(C * convolution(B * x)). convolution: [width, 1, kernel], with or without a bias.
    """

    input: Linear
    output: Linear
    width: int
    kernel: int
    convolution: str
    convolution_bias: str | None = None


@dataclass(frozen=True)
class RwkvTime:
    """Time mixing of RWKV-4 (Peng et al. 2023). mixes: tensors [1, 1, width] for key, value and
    receptance, each mixing a token with the one before.
    """

    key: Linear
    value: Linear
    receptance: Linear
    output: Linear
    width: int
    decay: str
    first: str
    mixes: tuple[str, str, str]


@dataclass(frozen=True)
class RwkvChannel:
    """Channel mixing of RWKV-4: sigmoid(receptance) * value(relu(key) ** 2). mixes: for key and
    receptance.
    """

    key: Linear
    value: Linear
    receptance: Linear
    width: int
    mixes: tuple[str, str]


@dataclass(frozen=True)
class LayerInput:
    """The input that a layer has of its own (Gemma 3n, 4): output(act(gate(x)) * input of the
    layer). number: of the layer, see `Plan.layer_inputs`.
    """

    gate: Linear
    output: Linear
    number: int
    width: int
    activation: Activation


Block = (
    Attention | LatentAttention | Mlp | Experts | DeltaNet | Mamba2 | ShortConvolution
    | RwkvTime | RwkvChannel | LayerInput | Memory
)  # fmt: skip
