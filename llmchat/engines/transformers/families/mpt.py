"""MPT: ALiBi, no biases, and queries, keys and values that can be clipped (`clip_qkv`).

transformers reads neither alibi_bias_max nor expansion_ratio.
"""

from llmchat.engines.transformers.families.alibi import slopes
from llmchat.engines.transformers.families.blocks import Linear, Mlp, Norm
from llmchat.engines.transformers.families.config_values import (
    Config,
    number,
    size,
    with_defaults,
)
from llmchat.engines.transformers.families.layers import equal_heads, joined_attention, layer_norm
from llmchat.engines.transformers.families.parts import model, separate_heads, sequential
from llmchat.engines.transformers.families.plan import Embedding, Layer, Plan, Step

_DEFAULTS = {"tie_word_embeddings": True}
_NAMES = {
    "d_model": "hidden_size",
    "n_heads": "num_attention_heads",
    "n_layers": "num_hidden_layers",
}


def plan(config: Config) -> Plan:
    config = with_defaults(config, _DEFAULTS, _NAMES)
    return model(
        config,
        [_layer(config, index) for index in range(size(config, "num_hidden_layers"))],
        _norm(config, "transformer.norm_f"),
        embedding=Embedding("transformer.wte.weight"),
    )


def _layer(config: Config, index: int) -> Layer:
    prefix, (heads, dim) = f"transformer.blocks.{index}.", equal_heads(config)
    given = config.get("attn_config")
    own = given if isinstance(given, dict) else {}
    block = joined_attention(
        config,
        f"{prefix}attn.Wqkv",
        f"{prefix}attn.out_proj",
        separate_heads(heads, heads, dim),
        clip=number(own, "clip_qkv", 0.0, least=0.0),
        scale=number(own, "softmax_scale", dim**-0.5),
        slopes=slopes(heads),
    )
    return sequential(
        Step(block, _norm(config, f"{prefix}norm_1")),
        Step(_mlp(config, f"{prefix}ffn."), _norm(config, f"{prefix}norm_2")),
    )


def _mlp(config: Config, prefix: str) -> Mlp:
    hidden = size(config, "hidden_size")
    inputs = (Linear(f"{prefix}up_proj", 4 * hidden, hidden),)
    return Mlp(inputs, Linear(f"{prefix}down_proj", hidden, 4 * hidden), "gelu")


def _norm(config: Config, module: str) -> Norm:
    return layer_norm(config, module, eps="layer_norm_epsilon", has_bias=False)
