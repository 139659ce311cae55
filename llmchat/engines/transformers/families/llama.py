"""The Llama family: Llama 1 to 3, Mistral with and without a sliding window, Qwen2."""

from llmchat.engines.transformers.families.blocks import Rotary
from llmchat.engines.transformers.families.config_values import Config, count, flag, names, size
from llmchat.engines.transformers.families.parts import (
    attention,
    gated_mlp,
    head_sizes,
    model,
    rms,
    sequential,
)
from llmchat.engines.transformers.families.plan import Layer, Plan, Step
from llmchat.engines.transformers.families.rope import rotary


def plan(config: Config) -> Plan:
    layers = size(config, "num_hidden_layers")
    rope = rotary(config, head_sizes(config)[2])
    windows = _windows(config, layers)
    return model(
        config,
        [_layer(config, index, rope, windows[index]) for index in range(layers)],
        rms(config, "model.norm.weight"),
    )


def _layer(config: Config, index: int, rope: Rotary, window: int) -> Layer:
    prefix = f"model.layers.{index}."
    heads = attention(config, f"{prefix}self_attn.", rotary=rope, window=window)
    return sequential(
        Step(heads, rms(config, f"{prefix}input_layernorm.weight")),
        Step(
            gated_mlp(config, f"{prefix}mlp."),
            rms(config, f"{prefix}post_attention_layernorm.weight"),
        ),
    )


def _windows(config: Config, layers: int) -> list[int]:
    """The window of each layer: Mistral's in all, Qwen2's in the ones behind max_window_layers."""
    window = count(config, "sliding_window")
    slides_by_default = config.get("model_type") == "mistral"
    if not flag(config, "use_sliding_window", slides_by_default) or not window:
        return [0] * layers
    kinds = names(config, "layer_types", layers)
    if kinds is not None:
        return [window if kind == "sliding_attention" else 0 for kind in kinds]
    first = 0 if slides_by_default else count(config, "max_window_layers", 28)
    return [window if index >= first else 0 for index in range(layers)]
