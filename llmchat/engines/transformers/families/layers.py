"""Norms, MLPs, windows and layers that several families share, in the words of their configs."""

from collections.abc import Sequence
from typing import Any

from llmchat.engines.transformers.families.blocks import (
    Attention,
    Experts,
    Heads,
    LatentAttention,
    Linear,
    Mlp,
    Norm,
)
from llmchat.engines.transformers.families.config_values import (
    Config,
    NoPlan,
    check_divides,
    count,
    epsilon,
    names,
    size,
)
from llmchat.engines.transformers.families.parts import activation, rms, sequential
from llmchat.engines.transformers.families.plan import Layer, Step

_KINDS = ("full_attention", "sliding_attention")


def layer_norm(
    config: Config,
    module: str,
    width: int | None = None,
    *,
    eps: str = "layer_norm_eps",
    has_bias: bool = True,
    **options: Any,
) -> Norm:
    """A LayerNorm of the residual stream, or of `width` numbers. eps: the key of its epsilon."""
    width = size(config, "hidden_size") if width is None else width
    bias = f"{module}.bias" if has_bias else None
    value = epsilon(config, eps, 1e-5)
    return Norm(width, value, f"{module}.weight", bias, kind="layer", **options)


def head_norms(
    config: Config,
    prefix: str,
    sizes: tuple[int, int, int],
    modules: Sequence[str] = ("q_norm", "k_norm"),
    **options: Any,
) -> dict[str, Norm]:
    """RMS norms of each head of queries and keys, as options of an attention."""
    heads, kv_heads, dim = sizes
    query, key = (f"{prefix}{module}.weight" for module in modules)
    return {
        "query_norm": rms(config, query, heads * dim, group=dim, **options),
        "key_norm": rms(config, key, kv_heads * dim, group=dim, **options),
    }


def plain_mlp(config: Config, up: str, down: str, inner: int, key: str = "hidden_act") -> Mlp:
    """Two linears with an activation between them. key: of the activation in the config."""
    hidden = size(config, "hidden_size")
    inputs = (Linear(up, inner, hidden),)
    return Mlp(inputs, Linear(down, hidden, inner), activation(config, key))


def equal_heads(config: Config) -> tuple[int, int]:
    """(heads, numbers of a head) of an attention whose heads share the residual stream."""
    heads, hidden = size(config, "num_attention_heads"), size(config, "hidden_size")
    check_divides(heads, hidden, "heads of the hidden size")
    return heads, hidden // heads


def joined_attention(
    config: Config, joined: str, output: str, heads: tuple[Heads, Heads, Heads], **options: Any
) -> Attention:
    """Attention whose queries, keys and values are one matrix, laid out as `heads` say."""
    hidden, queries = size(config, "hidden_size"), heads[0]
    out = sum(part.count * part.width for part in heads)
    options.setdefault("scale", queries.width**-0.5)
    last = Linear(output, hidden, queries.count * queries.width)
    return Attention((Linear(joined, out, hidden),), last, *heads, **options)


def heads_in_turn(heads: int, dim: int) -> tuple[Heads, Heads, Heads]:
    """Of each head queries, keys and values, then the next head's."""
    return (
        Heads(heads, dim, 0, 3 * dim),
        Heads(heads, dim, dim, 3 * dim),
        Heads(heads, dim, 2 * dim, 3 * dim),
    )


def pre_norm_layer(
    config: Config,
    prefix: str,
    attention: Attention | LatentAttention,
    mlp: Mlp | Experts,
    norms: Sequence[str] = ("input_layernorm", "post_attention_layernorm"),
    **options: Any,
) -> Layer:
    """Attention, then MLP, each behind an RMS norm. options: fields of the norms."""
    before, between = (rms(config, f"{prefix}{norm}.weight", **options) for norm in norms)
    return sequential(Step(attention, before), Step(mlp, between))


def parallel(*steps: Step) -> Layer:
    """A layer whose steps read the same residual stream."""
    return Layer((steps,))


def kinds_of_layers(config: Config, layers: int, default: Sequence[str]) -> list[str]:
    """full_attention or sliding_attention for each layer: the config's layer_types, or `default`.

    Raises NoPlan for other kinds.
    """
    kinds = names(config, "layer_types", layers) or list(default)
    if other := sorted(set(kinds) - set(_KINDS)):
        raise NoPlan(other[0])
    return kinds


def every_nth_full(layers: int, nth: int) -> list[str]:
    """Kinds of layers of which each nth has full attention."""
    return [_KINDS[(index + 1) % nth != 0] for index in range(layers)]


def windows_of(config: Config, kinds: Sequence[str]) -> list[int]:
    """The sliding window of each layer; 0: none."""
    window = count(config, "sliding_window")
    return [window if kind == "sliding_attention" else 0 for kind in kinds]
