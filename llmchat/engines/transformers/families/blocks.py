"""The kinds of blocks that a plan is made of, see plan.py.

Blocks name tensors and hold numbers; no tensor is read here. Widths count the numbers of a row of
activations. What blocks are made of is in pieces.py.
"""

from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from llmchat.engines.transformers.families.distance import DistanceBias
from llmchat.engines.transformers.families.pieces import Activation as Activation
from llmchat.engines.transformers.families.pieces import Heads as Heads
from llmchat.engines.transformers.families.pieces import Linear as Linear
from llmchat.engines.transformers.families.pieces import Norm as Norm
from llmchat.engines.transformers.families.pieces import PositionScale as PositionScale
from llmchat.engines.transformers.families.pieces import Rotary as Rotary


@dataclass(frozen=True)
class Attention:
    """Attention. The outputs of `inputs`, side by side, are a row that holds all heads.

    sees: a query sees the positions before it and its own; all of a text, which is read at once and
    whose keys and values are not kept (an encoder); what block `shares`, a Memory, has written; or
    the positions before it and all of the text's context (GLM, see Plan.answer_start).

    values may be where keys are: they are taken before the keys are normed and rotated. gates: as
    many as queries; the result of a head is multiplied with their sigmoid. norms_rotated: queries
    and keys are normed after the rotary embedding. second_rotary: of other numbers of a head than
    `rotary`. window: positions that a query sees, itself
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
    second_rotary: Rotary | None = None
    position_scale: PositionScale | None = None
    window: int = 0
    chunk: int = 0
    softcap: float = 0.0
    sinks: str | None = None
    slopes: Tensor | None = None
    clip: float = 0.0
    shares: int | None = None
    sees: Literal["before", "all", "memory", "context"] = "before"
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
    them, normed → for each head `plain` numbers of keys, then `value_width` of values. The cache
    holds the latent numbers and the shared part of keys.
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
    gate(x) (Falcon-H1). cutoff: act reads relu(gate - mean - cutoff * deviation) of each row.
    """

    inputs: tuple[Linear, ...]
    output: Linear
    activation: Activation
    limit: float = 0.0
    alpha: float = 1.0
    parameters: tuple[str, ...] = ()
    gate_scale: float = 1.0
    cutoff: float | None = None


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
    result, times silu(gate), or sigmoid(gate).

    Kimi Delta Attention (Kimi team 2025): where `decay` has as many numbers a head as keys, each
    row of the state decays on its own, and time_bias is [heads * key width]. low, high: linears in
    pairs, of which each `high` reads what its `low` makes of the input; the outputs of `high`
    follow those of `inputs` in a row.
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
    low: tuple[Linear, ...] = ()
    high: tuple[Linear, ...] = ()
    gate_activation: Literal["silu", "sigmoid"] = "silu"

    @property
    def decays_by_channel(self) -> bool:
        return self.decay.width > 1


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
    receptance. RWKV-7 has no receptance, and its mix is the part of the token before.
    """

    key: Linear
    value: Linear
    receptance: Linear | None
    width: int
    mixes: tuple[str, ...]


@dataclass(frozen=True)
class Rwkv7Time:
    """Time mixing of RWKV-7 (Peng et al. 2025): a state S [heads, key width, value width].

    mixes: tensors [width], the part of the token before in what receptance, key, value, decay, rate
    (a) and gate read. low, high: pairs of linears of decay (tanh between them), rate, gate (sigmoid
    between them) and, but in the first layer, value: v += sigmoid(it) * (v of the first layer - v).
    With a = sigmoid(rate), kk = key * key_scale, each head of length 1, k = key * (1 + (a - 1) *
    key_mix): S = exp(-sigmoid(decay) / sqrt(e)) * S - (kk * a) (kk S) + k v, and the result is
    (norm(r S) + sum(r * k * bonus) * v) * gate.
    """

    receptance: Linear
    key: Linear
    value: Linear
    low: tuple[Linear, ...]
    high: tuple[Linear, ...]
    output: Linear
    heads: int
    width: int
    mixes: tuple[str, ...]
    key_scale: str
    key_mix: str
    bonus: str
    norm: Norm

    @property
    def is_first(self) -> bool:
        return len(self.low) == 3


@dataclass(frozen=True)
class LayerInput:
    """The input that a layer has of its own (Gemma 3n, 4): output(act(gate(x)) * input of the
    layer). number: of the layer, see `Plan.layer_inputs`. scale: a tensor [hidden], factors of x.
    stream_norm: the result, normed, is added to all streams but x, and nothing to x.
    """

    gate: Linear
    output: Linear
    number: int
    width: int
    activation: Activation
    scale: str | None = None
    stream_norm: Norm | None = None


@dataclass(frozen=True)
class Laurel:
    """A learned residual of low rank (Menghani et al. 2024): x + norm(up(down(x)))."""

    down: Linear
    up: Linear
    norm: Norm


@dataclass(frozen=True)
class OpenStreams:
    """AltUp (Baykal et al. 2023): a token has several streams, and x is the first. The others begin
    as projections of x, each scaled to the root mean square of x.
    """

    projections: tuple[Linear, ...]


@dataclass(frozen=True)
class MixStreams:
    """What happens to all streams h before and behind the blocks of a layer, which change h_0 = x.

    c = coefficients(tanh(router(norm(x)))), float32. Before: h_i += sum_j c[i * streams + j] * h_j.
    Behind (corrects): x, before the blocks p, grows by c_0 * (x - p), others by (c_i + 1) (x - p).
    """

    norm: Norm
    router: Linear
    coefficients: Linear
    corrects: bool = False


@dataclass(frozen=True)
class JoinStreams:
    """x becomes the mean of x and of projections of the other streams, scaled in the same way."""

    projections: tuple[Linear, ...]


Block = (
    Attention | LatentAttention | Mlp | Experts | DeltaNet | Mamba2 | ShortConvolution
    | RwkvTime | RwkvChannel | Rwkv7Time | LayerInput | Memory | Laurel | OpenStreams | MixStreams
    | JoinStreams
)  # fmt: skip
