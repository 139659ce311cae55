"""GPT-Neo: learned position embeddings, unscaled scores, a sliding window in every other layer."""

from typing import Any

from llmchat.engines.transformers.families.blocks import Linear, Norm
from llmchat.engines.transformers.families.config_values import (
    Config,
    invalid,
    size,
    with_defaults,
)
from llmchat.engines.transformers.families.layers import equal_heads, layer_norm, plain_mlp
from llmchat.engines.transformers.families.parts import attention, model, sequential
from llmchat.engines.transformers.families.plan import Embedding, Layer, Plan, Step

_DEFAULTS = {
    "activation_function": "gelu_new",
    "attention_types": [[["global", "local"], 12]],
    "max_position_embeddings": 2048,
    "num_attention_heads": 16,
    "num_hidden_layers": 24,
    "tie_word_embeddings": True,
    "window_size": 256,
}
_NAMES = {"num_heads": "num_attention_heads", "num_layers": "num_hidden_layers"}


def plan(config: Config) -> Plan:
    config = with_defaults(config, _DEFAULTS, _NAMES)
    equal_heads(config)
    positions = size(config, "max_position_embeddings")
    return model(
        config,
        [_layer(config, index, window) for index, window in enumerate(_windows(config))],
        _norm(config, "transformer.ln_f"),
        embedding=Embedding(
            "transformer.wte.weight",
            positions="transformer.wpe.weight",
            position_count=positions,
        ),
        longest=positions,
    )


def _windows(config: Config) -> list[int]:
    """attention_types: lists of kinds, each with the number of times that it follows itself."""
    layers, window = size(config, "num_hidden_layers"), size(config, "window_size")
    types: Any = config["attention_types"]
    try:
        kinds = [kind for group, times in types for kind in list(group) * min(times, layers)]
    except (TypeError, ValueError) as error:
        raise invalid("attention_types", types) from error
    if len(kinds) != layers or not {"global", "local"}.issuperset(kinds):
        raise invalid("attention_types", types)
    return [window if kind == "local" else 0 for kind in kinds]


def _layer(config: Config, index: int, window: int) -> Layer:
    prefix, hidden = f"transformer.h.{index}.", size(config, "hidden_size")
    output = Linear(f"{prefix}attn.attention.out_proj", hidden, hidden)
    heads = attention(config, f"{prefix}attn.attention.", output=output, scale=1.0, window=window)
    inner = size(config, "intermediate_size", 4 * hidden)
    up, down = f"{prefix}mlp.c_fc", f"{prefix}mlp.c_proj"
    return sequential(
        Step(heads, _norm(config, f"{prefix}ln_1")),
        Step(
            plain_mlp(config, up, down, inner, "activation_function"),
            _norm(config, f"{prefix}ln_2"),
        ),
    )


def _norm(config: Config, module: str) -> Norm:
    return layer_norm(config, module, eps="layer_norm_epsilon")
