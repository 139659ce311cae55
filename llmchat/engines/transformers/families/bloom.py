"""BLOOM and BLOOMZ: ALiBi, a LayerNorm after the embedding, and fused QKV matrices."""

from llmchat.engines.transformers.families.alibi import slopes
from llmchat.engines.transformers.families.blocks import Linear, Mlp, Norm
from llmchat.engines.transformers.families.config_values import (
    Config,
    NoPlan,
    flag,
    size,
    with_defaults,
)
from llmchat.engines.transformers.families.layers import (
    equal_heads,
    heads_in_turn,
    joined_attention,
    layer_norm,
)
from llmchat.engines.transformers.families.parts import model, sequential
from llmchat.engines.transformers.families.plan import Embedding, Layer, Plan, Step

_DEFAULTS = {"tie_word_embeddings": True}
_NAMES = {
    "n_embed": "hidden_size",
    "n_head": "num_attention_heads",
    "n_layer": "num_hidden_layers",
}


def plan(config: Config) -> Plan:
    config = with_defaults(config, _DEFAULTS, _NAMES)
    if flag(config, "apply_residual_connection_post_layernorm"):
        raise NoPlan("apply_residual_connection_post_layernorm")
    return model(
        config,
        [_layer(config, index) for index in range(size(config, "num_hidden_layers"))],
        _norm(config, "transformer.ln_f"),
        embedding=Embedding(
            "transformer.word_embeddings.weight",
            norm=_norm(config, "transformer.word_embeddings_layernorm"),
        ),
    )


def _layer(config: Config, index: int) -> Layer:
    prefix, (heads, dim) = f"transformer.h.{index}.", equal_heads(config)
    block = joined_attention(
        config,
        f"{prefix}self_attention.query_key_value",
        f"{prefix}self_attention.dense",
        heads_in_turn(heads, dim),
        slopes=slopes(heads),
    )
    return sequential(
        Step(block, _norm(config, f"{prefix}input_layernorm")),
        Step(_mlp(config, f"{prefix}mlp."), _norm(config, f"{prefix}post_attention_layernorm")),
    )


def _mlp(config: Config, prefix: str) -> Mlp:
    hidden = size(config, "hidden_size")
    inputs = (Linear(f"{prefix}dense_h_to_4h", 4 * hidden, hidden),)
    return Mlp(inputs, Linear(f"{prefix}dense_4h_to_h", hidden, 4 * hidden), "gelu_tanh")


def _norm(config: Config, module: str) -> Norm:
    return layer_norm(config, module, eps="layer_norm_epsilon")
