"""OLMo 1: Llama with LayerNorms that have no weights, and values that can be clipped."""

from llmchat.engines.transformers.families.blocks import Norm, Rotary
from llmchat.engines.transformers.families.config_values import (
    Config,
    number,
    size,
    with_defaults,
)
from llmchat.engines.transformers.families.parts import (
    attention,
    gated_mlp,
    head_sizes,
    model,
    sequential,
)
from llmchat.engines.transformers.families.plan import Layer, Plan, Step
from llmchat.engines.transformers.families.rope import rotary

_DEFAULTS = {"max_position_embeddings": 2048}


def plan(config: Config) -> Plan:
    config = with_defaults(config, _DEFAULTS)
    rope, norm = rotary(config, head_sizes(config)[2]), _norm(config)
    layers = range(size(config, "num_hidden_layers"))
    return model(config, [_layer(config, index, rope, norm) for index in layers], norm)


def _layer(config: Config, index: int, rope: Rotary, norm: Norm) -> Layer:
    prefix = f"model.layers.{index}."
    clip = number(config, "clip_qkv", 0.0, least=0.0)
    heads = attention(config, f"{prefix}self_attn.", rotary=rope, clip=clip)
    return sequential(Step(heads, norm), Step(gated_mlp(config, f"{prefix}mlp."), norm))


def _norm(config: Config) -> Norm:
    return Norm(size(config, "hidden_size"), 1e-5, None, kind="layer")
