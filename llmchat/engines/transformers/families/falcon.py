"""Falcon: 7B (multi-query attention, parallel blocks), 40B, 180B and 11B (grouped-query).

Falcon-RW has no plan: transformers rounds its ALiBi biases to bfloat16 at each position.
"""

from llmchat.engines.transformers.families.blocks import Heads, Rotary
from llmchat.engines.transformers.families.config_values import (
    Config,
    NoPlan,
    check_divides,
    flag,
    size,
    with_defaults,
)
from llmchat.engines.transformers.families.layers import (
    equal_heads,
    heads_in_turn,
    joined_attention,
    layer_norm,
    parallel,
    plain_mlp,
)
from llmchat.engines.transformers.families.parts import model, separate_heads, sequential
from llmchat.engines.transformers.families.plan import Embedding, Layer, Plan, Step
from llmchat.engines.transformers.families.rope import rotary

_DEFAULTS = {
    "activation": "gelu",
    "max_position_embeddings": 2048,
    "multi_query": True,
    "parallel_attn": True,
    "tie_word_embeddings": True,
}
_NEW = "new_decoder_architecture"


def plan(config: Config) -> Plan:
    config = with_defaults(config, _DEFAULTS, {"n_embed": "hidden_size"})
    if flag(config, "alibi"):
        raise NoPlan("alibi")
    rope = rotary(config, equal_heads(config)[1])
    return model(
        config,
        [_layer(config, index, rope) for index in range(size(config, "num_hidden_layers"))],
        layer_norm(config, "transformer.ln_f", eps="layer_norm_epsilon"),
        embedding=Embedding("transformer.word_embeddings.weight"),
    )


def _layer(config: Config, index: int, rope: Rotary) -> Layer:
    prefix = f"transformer.h.{index}."
    joined, output = (f"{prefix}self_attention.{name}" for name in ("query_key_value", "dense"))
    heads = joined_attention(config, joined, output, _heads(config), rotary=rope)
    inner = size(config, "ffn_hidden_size", 4 * size(config, "hidden_size"))
    up, down = f"{prefix}mlp.dense_h_to_4h", f"{prefix}mlp.dense_4h_to_h"
    mlp = plain_mlp(config, up, down, inner, "activation")
    before, between = (
        layer_norm(config, f"{prefix}{name}", eps="layer_norm_epsilon") for name in _norms(config)
    )
    combined = parallel if flag(config, "parallel_attn") else sequential
    return combined(Step(heads, before), Step(mlp, between))


def _norms(config: Config) -> tuple[str, str]:
    """The norms of attention and MLP."""
    is_parallel, is_new = (flag(config, key) for key in ("parallel_attn", _NEW))
    if not is_parallel:
        if is_new:
            raise NoPlan(_NEW)
        return "input_layernorm", "post_attention_layernorm"
    norms = size(config, "num_ln_in_parallel_attn", 2 if is_new else 1)
    if norms > 2 or (norms == 2 and not is_new):
        raise NoPlan("num_ln_in_parallel_attn")
    return ("ln_attn", "ln_mlp") if norms == 2 else ("input_layernorm", "input_layernorm")


def _heads(config: Config) -> tuple[Heads, Heads, Heads]:
    heads, dim = equal_heads(config)
    if flag(config, _NEW):
        return _grouped(heads, size(config, "num_kv_heads", heads), dim)
    if flag(config, "multi_query"):
        return separate_heads(heads, 1, dim)
    return heads_in_turn(heads, dim)


def _grouped(heads: int, kv_heads: int, dim: int) -> tuple[Heads, Heads, Heads]:
    """Of each group its queries, then its keys and its values."""
    check_divides(kv_heads, heads, "heads that share keys")
    together = heads // kv_heads
    group = (together + 2) * dim
    return (
        Heads(heads, dim, 0, dim, together, group),
        Heads(kv_heads, dim, together * dim, group),
        Heads(kv_heads, dim, (together + 1) * dim, group),
    )
