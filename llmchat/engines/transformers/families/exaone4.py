"""EXAONE 4: norms after the blocks, QK norm, and no rotary embedding in layers without a
sliding window.
"""

from llmchat.engines.transformers.families.blocks import Rotary
from llmchat.engines.transformers.families.config_values import (
    Config,
    count,
    size,
    with_defaults,
)
from llmchat.engines.transformers.families.layers import (
    every_nth_full,
    head_norms,
    kinds_of_layers,
    windows_of,
)
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

_DEFAULTS = {
    "max_position_embeddings": 2048,
    "num_key_value_heads": 32,
    "rms_norm_eps": 1e-5,
    "sliding_window": 4096,
    "sliding_window_pattern": 4,
}


def plan(config: Config) -> Plan:
    config = with_defaults(config, _DEFAULTS)
    layers = size(config, "num_hidden_layers")
    rope = rotary(config, head_sizes(config)[2])
    windows = _windows(config, layers)
    slides = bool(count(config, "sliding_window"))
    return model(
        config,
        [
            _layer(config, index, rope if window or not slides else None, window)
            for index, window in enumerate(windows)
        ],
        rms(config, "model.norm.weight"),
    )


def _windows(config: Config, layers: int) -> list[int]:
    if not count(config, "sliding_window"):
        return [0] * layers
    default: list[str] = []
    if config.get("layer_types") is None:
        default = every_nth_full(layers, size(config, "sliding_window_pattern"))
    return windows_of(config, kinds_of_layers(config, layers, default))


def _layer(config: Config, index: int, rope: Rotary | None, window: int) -> Layer:
    prefix = f"model.layers.{index}."
    norms = head_norms(config, f"{prefix}self_attn.", head_sizes(config))
    heads = attention(config, f"{prefix}self_attn.", rotary=rope, window=window, **norms)
    first = rms(config, f"{prefix}post_attention_layernorm.weight")
    second = rms(config, f"{prefix}post_feedforward_layernorm.weight")
    return sequential(
        Step(heads, None, first), Step(gated_mlp(config, f"{prefix}mlp."), None, second)
    )
