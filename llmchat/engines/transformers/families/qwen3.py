"""Qwen3: Llama with QK norm."""

from llmchat.engines.transformers.families.blocks import Rotary
from llmchat.engines.transformers.families.config_values import (
    Config,
    flag,
    size,
    with_defaults,
)
from llmchat.engines.transformers.families.layers import (
    head_norms,
    kinds_of_layers,
    pre_norm_layer,
    windows_of,
)
from llmchat.engines.transformers.families.llama import last_slide
from llmchat.engines.transformers.families.parts import (
    attention,
    gated_mlp,
    head_sizes,
    model,
    rms,
)
from llmchat.engines.transformers.families.plan import Layer, Plan
from llmchat.engines.transformers.families.rope import rotary

_DEFAULTS = {
    "head_dim": 128,
    "max_position_embeddings": 32768,
    "max_window_layers": 28,
    "num_key_value_heads": 32,
    "sliding_window": 4096,
}


def plan(config: Config) -> Plan:
    config = with_defaults(config, _DEFAULTS)
    layers = size(config, "num_hidden_layers")
    rope = rotary(config, head_sizes(config)[2])
    windows = [0] * layers
    if flag(config, "use_sliding_window"):
        windows = windows_of(config, kinds_of_layers(config, layers, last_slide(config, layers)))
    return model(
        config,
        [_layer(config, index, rope, windows[index]) for index in range(layers)],
        rms(config, "model.norm.weight"),
    )


def _layer(config: Config, index: int, rope: Rotary, window: int) -> Layer:
    prefix = f"model.layers.{index}."
    heads = attention(
        config,
        f"{prefix}self_attn.",
        rotary=rope,
        window=window,
        **head_norms(config, f"{prefix}self_attn.", head_sizes(config)),
    )
    return pre_norm_layer(config, prefix, heads, gated_mlp(config, f"{prefix}mlp."))
