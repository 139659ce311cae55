"""Parts of plans that most families share, in the words of their config.json."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from llmchat.engines.transformers.families.blocks import (
    Activation,
    Attention,
    Heads,
    Linear,
    Mlp,
    Norm,
)
from llmchat.engines.transformers.families.config_values import (
    Config,
    NoPlan,
    check_divides,
    epsilon,
    invalid,
    size,
)
from llmchat.engines.transformers.families.plan import Embedding, Head, Layer, Plan, Step

ACTIVATIONS: dict[str, Activation] = {
    "silu": "silu",
    "swish": "silu",
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "relu": "relu",
    "relu2": "relu2",
}


def activation(config: Config, name: str = "hidden_act", default: str = "silu") -> Activation:
    """Raises NoPlan for one that no executor knows."""
    value = config.get(name) or default
    if not isinstance(value, str):
        raise invalid(name, value)
    if value not in ACTIVATIONS:
        raise NoPlan(value)
    return ACTIVATIONS[value]


def head_sizes(config: Config) -> tuple[int, int, int]:
    """(heads, heads of keys, numbers of a head). Raises Mismatch if they do not fit together."""
    heads, hidden = size(config, "num_attention_heads"), size(config, "hidden_size")
    kv_heads = size(config, "num_key_value_heads", default=heads)
    dim = size(config, "head_dim", default=max(1, hidden // heads))
    check_divides(kv_heads, heads, "heads that share keys")
    return heads, kv_heads, dim


def rms(config: Config, weight: str | None, width: int | None = None, **options: Any) -> Norm:
    """An RMS norm of the residual stream, or of `width` numbers."""
    count = size(config, "hidden_size") if width is None else width
    return Norm(count, epsilon(config), weight, **options)


def separate_heads(heads: int, kv_heads: int, dim: int) -> tuple[Heads, Heads, Heads]:
    """Queries, keys and values of three matrices whose outputs lie side by side."""
    keys, values = heads * dim, (heads + kv_heads) * dim
    return (
        Heads(heads, dim, 0, dim),
        Heads(kv_heads, dim, keys, dim),
        Heads(kv_heads, dim, values, dim),
    )


def attention(config: Config, prefix: str, **options: Any) -> Attention:
    """Attention with q_proj, k_proj, v_proj and o_proj behind `prefix`.

    options: fields of Attention; its scale is 1 / sqrt(head size) if none is given.
    """
    hidden, (heads, kv_heads, dim) = size(config, "hidden_size"), head_sizes(config)
    outputs = {"q_proj": heads * dim, "k_proj": kv_heads * dim, "v_proj": kv_heads * dim}
    inputs = tuple(Linear(f"{prefix}{name}", out, hidden) for name, out in outputs.items())
    options.setdefault("scale", dim**-0.5)
    output = options.pop("output", None) or Linear(f"{prefix}o_proj", hidden, heads * dim)
    return Attention(inputs, output, *separate_heads(heads, kv_heads, dim), **options)


def gated_mlp(
    config: Config,
    prefix: str,
    inner: int | None = None,
    names: Sequence[str] = ("gate_proj", "up_proj", "down_proj"),
    **options: Any,
) -> Mlp:
    """gate, up and down behind `prefix`. inner: intermediate_size if none is given."""
    hidden = size(config, "hidden_size")
    inner = size(config, "intermediate_size") if inner is None else inner
    gate, up, down = (f"{prefix}{name}" for name in names)
    options.setdefault("activation", activation(config))
    inputs = Linear(gate, inner, hidden), Linear(up, inner, hidden)
    return Mlp(inputs, Linear(down, hidden, inner), **options)


def joined_gated_mlp(
    config: Config, joined: str, down: str, inner: int | None = None, **options: Any
) -> Mlp:
    """The same where gate and up are the halves of one matrix."""
    hidden = size(config, "hidden_size")
    inner = size(config, "intermediate_size") if inner is None else inner
    options.setdefault("activation", activation(config))
    halves = tuple(Linear(joined, inner, hidden, first, 2 * inner) for first in (0, inner))
    return Mlp(halves, Linear(down, hidden, inner), **options)


def layer_prefix(index: int) -> str:
    """What the names of a layer's tensors begin with, in most families."""
    return f"model.layers.{index}."


def sequential(*steps: Step) -> Layer:
    """A layer whose steps follow each other."""
    return Layer(tuple((step,) for step in steps))


def model(
    config: Config,
    layers: Sequence[Layer],
    norm: Norm | None,
    *,
    prefix: str = "model.",
    embedding: Embedding | None = None,
    head: Head | None = None,
    **options: Any,
) -> Plan:
    """A plan with the usual names: `prefix`embed_tokens and lm_head.

    The head is tied as the config says; `check.bind` then looks at the tensors.
    """
    hidden, vocabulary = size(config, "hidden_size"), size(config, "vocab_size")
    embedding = embedding or Embedding(f"{prefix}embed_tokens.weight")
    head = head or Head(Linear("lm_head", vocabulary, hidden))
    head = replace(head, is_tied=bool(config.get("tie_word_embeddings", False)))
    return Plan(hidden, vocabulary, embedding, tuple(layers), norm, head, **options)
