"""The text of Gemma 3n: several residual streams (AltUp), low-rank residuals (LAuReL), per-layer
embeddings, sparse MLPs, and last layers that share the keys and values of earlier ones.
"""

from dataclasses import replace
from statistics import NormalDist
from typing import NamedTuple

from llmchat.engines.transformers.families.blocks import (
    Attention,
    JoinStreams,
    Laurel,
    LayerInput,
    Linear,
    MixStreams,
    Mlp,
    Norm,
    OpenStreams,
    Rotary,
)
from llmchat.engines.transformers.families.config_values import (
    Config,
    NoPlan,
    count,
    flag,
    invalid,
    numbers,
    size,
    sizes,
    with_defaults,
)
from llmchat.engines.transformers.families.gemma import with_softcap
from llmchat.engines.transformers.families.gemma4 import layer_inputs, shares_of, sharing
from llmchat.engines.transformers.families.layers import (
    every_nth_full,
    head_norms,
    kinds_of_layers,
    windows_of,
)
from llmchat.engines.transformers.families.parts import (
    activation,
    attention,
    gated_mlp,
    head_sizes,
    layer_prefix,
    model,
    rms,
    sequential,
)
from llmchat.engines.transformers.families.plan import Embedding, Layer, Plan, Step
from llmchat.engines.transformers.families.rope import rotary, scaling_of_kind

_DEFAULTS: Config = {
    "altup_num_inputs": 4,
    "final_logit_softcapping": 30.0,
    "head_dim": 256,
    "hidden_size": 2048,
    "hidden_size_per_layer_input": 256,
    "intermediate_size": 16384,
    "laurel_rank": 64,
    "max_position_embeddings": 32768,
    "num_attention_heads": 8,
    "num_hidden_layers": 35,
    "num_key_value_heads": 2,
    "num_kv_shared_layers": 15,
    "sliding_window": 512,
    "tie_word_embeddings": True,
    "vocab_size": 262400,
    "vocab_size_per_layer_input": 262144,
}
# The key of a base frequency and its default, by the kind of layer.
_THETAS = {
    "full_attention": ("rope_theta", 1e6),
    "sliding_attention": ("rope_local_base_freq", 1e4),
}
# More than any model has; csrc has memory for as many.
_MOST_STREAMS = 8
# Of each layer: before and behind attention, the MLP, and the input of the layer.
_BLOCKS = 6


class _Place(NamedTuple):
    """What the place of a layer decides. shares: the layer whose keys and values it uses; inner:
    the width of its MLP; cutoff: see blocks.Mlp.
    """

    number: int
    window: int
    rope: Rotary
    shares: int | None
    inner: int
    cutoff: float | None

    @property
    def prefix(self) -> str:
        return layer_prefix(self.number)


def plan(config: Config) -> Plan:
    config = with_defaults(config, _DEFAULTS)
    if count(config, "altup_active_idx"):
        raise NoPlan("altup_active_idx")
    layers = [_layer(config, place) for place in _places(config)]
    made = model(
        config,
        [_ends(OpenStreams, config, "altup_projections"), *layers,
         _ends(JoinStreams, config, "altup_unembed_projections")],
        rms(config, "model.norm.weight"),
        embedding=Embedding("model.embed_tokens.weight", size(config, "hidden_size") ** 0.5),
        layer_inputs=layer_inputs(config),
    )  # fmt: skip
    return with_softcap(config, made)


def _places(config: Config) -> list[_Place]:
    layers = size(config, "num_hidden_layers")
    kinds = kinds_of_layers(config, layers, every_nth_full(layers, 5))
    windows, shares = windows_of(config, kinds), shares_of(config, kinds)
    dim = head_sizes(config)[2]
    ropes = {
        kind: rotary(config, dim, scaling_of_kind(config, kind, *theta))
        for kind, theta in _THETAS.items()
    }
    inner, cutoffs = _widths(config, layers), _cutoffs(config, layers)
    return [
        _Place(index, windows[index], ropes[kind], shares[index], inner[index], cutoffs[index])
        for index, kind in enumerate(kinds)
    ]


def _widths(config: Config, layers: int) -> list[int]:
    """The width of each MLP: one for all, or a list (E2B)."""
    if not isinstance(config["intermediate_size"], list):
        return [size(config, "intermediate_size")] * layers
    widths = sizes(config, "intermediate_size")
    if len(widths) != layers or 0 in widths:
        raise invalid("intermediate_size", config["intermediate_size"])
    return widths


def _cutoffs(config: Config, layers: int) -> list[float | None]:
    """For each layer the deviations above which lies the part of a normal distribution that is
    kept; None where all is.
    """
    pattern = numbers(config, "activation_sparsity_pattern")
    if not pattern:
        sparse = 10 if layers > 10 else 0
        pattern = [0.95] * sparse + [0.0] * (layers - sparse)
    if len(pattern) != layers or not all(0 <= part < 1 for part in pattern):
        raise invalid("activation_sparsity_pattern", pattern)
    return [NormalDist().inv_cdf(part) if part else None for part in pattern]


def _streams(config: Config) -> int:
    streams = size(config, "altup_num_inputs")
    if streams > _MOST_STREAMS:
        raise NoPlan("altup_num_inputs")
    return streams


def _ends(kind: type[OpenStreams | JoinStreams], config: Config, module: str) -> Layer:
    hidden, streams = size(config, "hidden_size"), _streams(config)
    linears = (Linear(f"model.{module}.{index}", hidden, hidden) for index in range(streams - 1))
    return sequential(Step(kind(tuple(linears)), None))


def _layer(config: Config, place: _Place) -> Layer:
    """Attention and LAuReL read the same norm; their sum is divided by the root of two."""

    def norm(name: str) -> Norm:
        return rms(config, f"{place.prefix}{name}.weight")

    before = norm("input_layernorm")
    return Layer(
        (
            (Step(_mix(config, place, corrects=False), None),),
            (
                Step(_attention(config, place), before, norm("post_attention_layernorm")),
                Step(_laurel(config, place), before, factor=2**-0.5),
            ),
            (
                Step(
                    _mlp(config, place),
                    norm("pre_feedforward_layernorm"),
                    norm("post_feedforward_layernorm"),
                ),
            ),
            (Step(_mix(config, place, corrects=True), None),),
            (Step(_layer_input(config, place), None),),
        )
    )


def _attention(config: Config, place: _Place) -> Attention:
    """Scores are not scaled: queries and keys are normed."""
    prefix = f"{place.prefix}self_attn."
    norms = head_norms(config, prefix, head_sizes(config))
    value_norm = replace(norms["key_norm"], weight=None)
    block = attention(
        config, prefix, rotary=place.rope, window=place.window, scale=1.0, value_norm=value_norm,
        **norms,
    )  # fmt: skip
    if place.shares is None:
        return block
    # Behind the block that opens the streams; attention is the second one of its layer.
    return sharing(block, 1 + place.shares * _BLOCKS + 1)


def _laurel(config: Config, place: _Place) -> Laurel:
    hidden, rank = size(config, "hidden_size"), size(config, "laurel_rank")
    prefix = f"{place.prefix}laurel."
    down = Linear(f"{prefix}linear_left", rank, hidden)
    up = Linear(f"{prefix}linear_right", hidden, rank)
    return Laurel(down, up, rms(config, f"{prefix}post_laurel_norm.weight"))


def _mlp(config: Config, place: _Place) -> Mlp:
    act = activation(config, "hidden_activation", "gelu_pytorch_tanh")
    prefix = f"{place.prefix}mlp."
    return gated_mlp(config, prefix, place.inner, activation=act, cutoff=place.cutoff)


def _mix(config: Config, place: _Place, corrects: bool) -> MixStreams:
    hidden, streams = size(config, "hidden_size"), _streams(config)
    prefix = f"{place.prefix}altup."
    module, out = ("correction", streams) if corrects else ("prediction", streams**2)
    return MixStreams(
        rms(config, f"{prefix}router_norm.weight", scale=1 / hidden),
        Linear(f"{prefix}modality_router", streams, hidden),
        Linear(f"{prefix}{module}_coefs", out, streams),
        corrects,
    )


def _layer_input(config: Config, place: _Place) -> LayerInput:
    hidden, width = size(config, "hidden_size"), size(config, "hidden_size_per_layer_input")
    is_scaled = flag(config, "altup_correct_scale", True)
    return LayerInput(
        Linear(f"{place.prefix}per_layer_input_gate", width, hidden),
        Linear(f"{place.prefix}per_layer_projection", hidden, width),
        place.number,
        width,
        activation(config, "hidden_activation", "gelu_pytorch_tanh"),
        f"{place.prefix}altup.correct_output_scale" if is_scaled else None,
        rms(config, f"{place.prefix}post_per_layer_input_norm.weight"),
    )
