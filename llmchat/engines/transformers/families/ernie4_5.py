"""ERNIE 4.5 without experts: Llama with an interleaved rotary embedding."""

from llmchat.engines.transformers.families.config_values import Config, size, with_defaults
from llmchat.engines.transformers.families.layers import pre_norm_layer
from llmchat.engines.transformers.families.parts import (
    attention,
    gated_mlp,
    head_sizes,
    model,
    rms,
)
from llmchat.engines.transformers.families.plan import Plan
from llmchat.engines.transformers.families.rope import rotary

_DEFAULTS = {
    "head_dim": 128,
    "max_position_embeddings": 131072,
    "num_key_value_heads": 2,
    "rms_norm_eps": 1e-5,
    "rope_theta": 500000.0,
    "tie_word_embeddings": True,
}


def plan(config: Config) -> Plan:
    config = with_defaults(config, _DEFAULTS)
    rope = rotary(config, head_sizes(config)[2], interleaved=True)
    layers = []
    for index in range(size(config, "num_hidden_layers")):
        prefix = f"model.layers.{index}."
        heads = attention(config, f"{prefix}self_attn.", rotary=rope)
        mlp = gated_mlp(config, f"{prefix}mlp.")
        layers.append(pre_norm_layer(config, prefix, heads, mlp))
    return model(config, layers, rms(config, "model.norm.weight"))
