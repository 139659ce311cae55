"""StarCoder 2: LayerNorms, biases, an MLP without a gate, a sliding window in smaller models."""

from llmchat.engines.transformers.families.blocks import Norm, Rotary
from llmchat.engines.transformers.families.config_values import Config, count, size, with_defaults
from llmchat.engines.transformers.families.layers import layer_norm, plain_mlp
from llmchat.engines.transformers.families.parts import attention, head_sizes, model, sequential
from llmchat.engines.transformers.families.plan import Layer, Plan, Step
from llmchat.engines.transformers.families.rope import rotary

_DEFAULTS = {
    "hidden_act": "gelu_pytorch_tanh",
    "max_position_embeddings": 4096,
    "num_key_value_heads": 2,
    "tie_word_embeddings": True,
}


def plan(config: Config) -> Plan:
    config = with_defaults(config, _DEFAULTS)
    rope = rotary(config, head_sizes(config)[2])
    return model(
        config,
        [_layer(config, index, rope) for index in range(size(config, "num_hidden_layers"))],
        _norm(config, "model.norm"),
    )


def _layer(config: Config, index: int, rope: Rotary) -> Layer:
    prefix = f"model.layers.{index}."
    window = count(config, "sliding_window")
    heads = attention(config, f"{prefix}self_attn.", rotary=rope, window=window)
    up, down = f"{prefix}mlp.c_fc", f"{prefix}mlp.c_proj"
    mlp = plain_mlp(config, up, down, size(config, "intermediate_size"))
    return sequential(
        Step(heads, _norm(config, f"{prefix}input_layernorm")),
        Step(mlp, _norm(config, f"{prefix}post_attention_layernorm")),
    )


def _norm(config: Config, module: str) -> Norm:
    return layer_norm(config, module, eps="norm_epsilon")
