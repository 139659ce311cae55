"""Nemotron 3 and 4, Minitron: LayerNorms that multiply by 1 + weight, an MLP with ReLU²."""

from llmchat.engines.transformers.families.blocks import Norm, Rotary
from llmchat.engines.transformers.families.config_values import Config, size, with_defaults
from llmchat.engines.transformers.families.layers import layer_norm, plain_mlp
from llmchat.engines.transformers.families.parts import attention, head_sizes, model, sequential
from llmchat.engines.transformers.families.plan import Layer, Plan, Step
from llmchat.engines.transformers.families.rope import rotary

_DEFAULTS = {
    "hidden_act": "relu2",
    "max_position_embeddings": 4096,
    "partial_rotary_factor": 0.5,
}


def plan(config: Config) -> Plan:
    config = with_defaults(config, _DEFAULTS)
    rope = rotary(config, head_sizes(config)[2])
    return model(
        config,
        [_layer(config, index, rope) for index in range(size(config, "num_hidden_layers"))],
        _norm(config, "model.norm"),
    )


def _norm(config: Config, module: str) -> Norm:
    return layer_norm(config, module, eps="norm_eps", offset=1.0)


def _layer(config: Config, index: int, rope: Rotary) -> Layer:
    prefix = f"model.layers.{index}."
    heads = attention(config, f"{prefix}self_attn.", rotary=rope)
    up, down = f"{prefix}mlp.up_proj", f"{prefix}mlp.down_proj"
    mlp = plain_mlp(config, up, down, size(config, "intermediate_size"))
    return sequential(
        Step(heads, _norm(config, f"{prefix}input_layernorm")),
        Step(mlp, _norm(config, f"{prefix}post_attention_layernorm")),
    )
