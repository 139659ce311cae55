"""ChatGLM: the first model (GLM, Du et al. 2022), and the later ones, whose layers are Llama's.

ChatGLM-6B reads a prompt in both directions up to <sop> and has two counters of positions, each for
one half of a head. Its residuals are added to the output of a norm. ChatGLM2, 3 and GLM-4 (the
files with code of their own) have an interleaved rotary embedding of the first half of a head.
"""

from dataclasses import replace

import torch

from llmchat.engines.transformers.families.blocks import Attention, Linear, Norm, Rotary
from llmchat.engines.transformers.families.config_values import (
    Config,
    NoPlan,
    check_divides,
    epsilon,
    flag,
    invalid,
    number,
    size,
    with_defaults,
)
from llmchat.engines.transformers.families.layers import (
    equal_heads,
    heads_in_turn,
    joined_attention,
    layer_norm,
    plain_mlp,
)
from llmchat.engines.transformers.families.parts import (
    joined_gated_mlp,
    model,
    rms,
    separate_heads,
    sequential,
)
from llmchat.engines.transformers.families.plan import Embedding, Head, Layer, Plan, Step
from llmchat.engines.transformers.families.rope import rotary

_FIRST = {
    "bos_token_id": 130004, "hidden_act": "gelu_new", "layernorm_epsilon": 1e-5,
    "position_encoding_2d": True,
}  # fmt: skip
_LATER = {"hidden_act": "silu", "layernorm_epsilon": 1e-5, "rope_ratio": 1.0}
_NAMES = {"num_layers": "num_hidden_layers", "padded_vocab_size": "vocab_size"}


def plan(config: Config) -> Plan:
    is_later = "padded_vocab_size" in config
    config = with_defaults(config, _LATER if is_later else _FIRST, _NAMES)
    if config.get("pre_seq_len"):
        raise NoPlan("pre_seq_len")
    return _later(config) if is_later else _first(config)


# ChatGLM-6B


def _first(config: Config) -> Plan:
    if not flag(config, "position_encoding_2d"):
        raise NoPlan("position_encoding_2d")
    start, vocabulary = size(config, "bos_token_id"), size(config, "vocab_size")
    if start >= vocabulary:
        raise invalid("bos_token_id", start)
    layers, rotaries = size(config, "num_hidden_layers"), _rotaries(config)
    return model(
        config,
        [_first_layer(config, index, rotaries) for index in range(layers)],
        layer_norm(config, "transformer.final_layernorm", eps="layernorm_epsilon"),
        embedding=Embedding("transformer.word_embeddings.weight"),
        answer_start=start,
    )


def _rotaries(config: Config) -> tuple[Rotary, Rotary]:
    """Of each half of a head. The published code computes the frequencies in 16 bits."""
    half = equal_heads(config)[1] // 2
    found = rotary(config, half, {"rope_theta": 10000.0})
    rounded = replace(found, frequencies=found.frequencies.to(torch.float16).float())
    return replace(rounded, counts="context"), replace(rounded, first=half, counts="answer")


def _first_layer(config: Config, index: int, rotaries: tuple[Rotary, Rotary]) -> Layer:
    """A block adds to alpha * norm(x), here as alpha * (norm(x) + block / alpha)."""
    prefix, hidden = f"transformer.layers.{index}.", size(config, "hidden_size")
    attention = joined_attention(
        config,
        f"{prefix}attention.query_key_value",
        f"{prefix}attention.dense",
        heads_in_turn(*equal_heads(config)),
        rotary=rotaries[0],
        second_rotary=rotaries[1],
        sees="context",
    )
    up, down = f"{prefix}mlp.dense_h_to_4h", f"{prefix}mlp.dense_4h_to_h"
    mlp = plain_mlp(config, up, down, size(config, "inner_hidden_size", 4 * hidden))
    alpha = (2 * size(config, "num_hidden_layers")) ** 0.5
    first, second = (
        layer_norm(config, f"{prefix}{name}", eps="layernorm_epsilon")
        for name in ("input_layernorm", "post_attention_layernorm")
    )
    return sequential(
        Step(attention, None, scale=1 / alpha, factor=alpha, stream_norm=first),
        Step(mlp, None, scale=1 / alpha, factor=alpha, stream_norm=second),
    )


# ChatGLM2, ChatGLM3 and GLM-4


def _later(config: Config) -> Plan:
    hidden, vocabulary = size(config, "hidden_size"), size(config, "vocab_size")
    rope = _later_rotary(config)
    head = Head(Linear("transformer.output_layer", vocabulary, hidden))
    last = _norm(config, "transformer.encoder.final_layernorm")
    return model(
        config,
        [_later_layer(config, index, rope) for index in range(size(config, "num_hidden_layers"))],
        last if flag(config, "post_layer_norm", True) else None,
        embedding=Embedding("transformer.embedding.word_embeddings.weight"),
        head=head,
    )


def _later_rotary(config: Config) -> Rotary:
    dim = _later_heads(config)[2]
    theta = 10000.0 * number(config, "rope_ratio", 1.0, least=0.0)
    scaling = {"rope_theta": theta, "partial_rotary_factor": 0.5}
    return rotary(config, dim, scaling, interleaved=True)


def _later_heads(config: Config) -> tuple[int, int, int]:
    """(heads, heads of keys, numbers of a head)"""
    heads = size(config, "num_attention_heads")
    dim = size(config, "kv_channels", size(config, "hidden_size") // heads)
    is_grouped = flag(config, "multi_query_attention")
    groups = size(config, "multi_query_group_num", 1) if is_grouped else heads
    check_divides(groups, heads, "heads that share keys")
    return heads, groups, dim


def _later_attention(config: Config, prefix: str, rope: Rotary) -> Attention:
    heads, groups, dim = _later_heads(config)
    is_grouped = flag(config, "multi_query_attention")
    parts = separate_heads(heads, groups, dim) if is_grouped else heads_in_turn(heads, dim)
    names = f"{prefix}self_attention.query_key_value", f"{prefix}self_attention.dense"
    return joined_attention(config, *names, parts, rotary=rope)


def _later_layer(config: Config, index: int, rope: Rotary) -> Layer:
    prefix = f"transformer.encoder.layers.{index}."
    attention = _later_attention(config, prefix, rope)
    mlp = joined_gated_mlp(
        config,
        f"{prefix}mlp.dense_h_to_4h",
        f"{prefix}mlp.dense_4h_to_h",
        size(config, "ffn_hidden_size"),
    )
    first, second = (
        _norm(config, f"{prefix}{name}") for name in ("input_layernorm", "post_attention_layernorm")
    )
    if flag(config, "apply_residual_connection_post_layernorm"):
        return sequential(
            Step(attention, None, stream_norm=first), Step(mlp, None, stream_norm=second)
        )
    return sequential(Step(attention, first), Step(mlp, second))


def _norm(config: Config, module: str) -> Norm:
    if not flag(config, "rmsnorm", True):
        return layer_norm(config, module, eps="layernorm_epsilon")
    eps = epsilon(config, "layernorm_epsilon", 1e-5)
    return replace(rms(config, f"{module}.weight"), epsilon=eps)
