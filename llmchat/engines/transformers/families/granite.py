"""Granite 3, dense Granite 4: Llama with multipliers of embedding, residuals, scores and logits."""

from dataclasses import replace

from llmchat.engines.transformers.families.blocks import Rotary
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
    rms,
    sequential,
)
from llmchat.engines.transformers.families.plan import Embedding, Layer, Plan, Step
from llmchat.engines.transformers.families.rope import rotary

_DEFAULTS = {"max_position_embeddings": 2048}


def plan(config: Config) -> Plan:
    config = with_defaults(config, _DEFAULTS)
    rope = rotary(config, head_sizes(config)[2])
    made = model(
        config,
        [_layer(config, index, rope) for index in range(size(config, "num_hidden_layers"))],
        rms(config, "model.norm.weight"),
        embedding=Embedding(
            "model.embed_tokens.weight", number(config, "embedding_multiplier", 1.0)
        ),
    )
    scaling = number(config, "logits_scaling", 1.0, least=1e-9)
    return replace(made, head=replace(made.head, scale=1 / scaling))


def _layer(config: Config, index: int, rope: Rotary) -> Layer:
    prefix = f"model.layers.{index}."
    scale = number(config, "attention_multiplier", 1.0)
    heads = attention(config, f"{prefix}self_attn.", rotary=rope, scale=scale)
    factor = number(config, "residual_multiplier", 1.0)
    before = rms(config, f"{prefix}input_layernorm.weight")
    between = rms(config, f"{prefix}post_attention_layernorm.weight")
    return sequential(
        Step(heads, before, scale=factor),
        Step(gated_mlp(config, f"{prefix}mlp."), between, scale=factor),
    )
