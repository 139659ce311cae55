"""The Llama family: Llama 1 to 3, Mistral with and without a sliding window, Qwen2, Seed-OSS, and
Arcee, whose MLP has no gate.
"""

from llmchat.engines.transformers.families.blocks import Mlp, Rotary
from llmchat.engines.transformers.families.config_values import (
    Config,
    count,
    flag,
    size,
    with_defaults,
)
from llmchat.engines.transformers.families.layers import (
    kinds_of_layers,
    plain_mlp,
    pre_norm_layer,
    windows_of,
)
from llmchat.engines.transformers.families.parts import (
    attention,
    gated_mlp,
    head_sizes,
    model,
    rms,
)
from llmchat.engines.transformers.families.plan import Layer, Plan
from llmchat.engines.transformers.families.rope import rotary

_DEFAULTS: dict[str, Config] = {
    "arcee": {"hidden_act": "relu2", "max_position_embeddings": 4096, "rms_norm_eps": 1e-5},
    "llama": {"max_position_embeddings": 2048},
    "ministral": {
        "max_position_embeddings": 131072,
        "num_key_value_heads": 8,
        "sliding_window": 4096,
    },
    "mistral": {
        "max_position_embeddings": 131072,
        "num_key_value_heads": 8,
        "sliding_window": 4096,
    },
    "qwen2": {
        "max_position_embeddings": 32768,
        "max_window_layers": 28,
        "num_key_value_heads": 32,
        "sliding_window": 4096,
    },
    "seed_oss": {
        "head_dim": 128,
        "max_position_embeddings": 524288,
        "num_key_value_heads": 8,
    },
}


def plan(config: Config) -> Plan:
    config = with_defaults(config, _DEFAULTS[config["model_type"]])
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
    return pre_norm_layer(config, prefix, heads, _mlp(config, f"{prefix}mlp."))


def _mlp(config: Config, prefix: str) -> Mlp:
    if config["model_type"] != "arcee":
        return gated_mlp(config, prefix)
    inner = size(config, "intermediate_size")
    return plain_mlp(config, f"{prefix}up_proj", f"{prefix}down_proj", inner)


def _windows(config: Config, layers: int) -> list[int]:
    """The window of each layer: Mistral's in all, Ministral's as layer_types say, and Qwen2's in
    the ones behind max_window_layers.
    """
    match config["model_type"]:
        case "mistral":
            return [count(config, "sliding_window")] * layers
        case "ministral":
            kinds = kinds_of_layers(config, layers, ["sliding_attention"] * layers)
            return windows_of(config, kinds)
        case "qwen2" if flag(config, "use_sliding_window"):
            return windows_of(config, kinds_of_layers(config, layers, last_slide(config, layers)))
        case _:
            return [0] * layers


def last_slide(config: Config, layers: int) -> list[str]:
    """Kinds of layers of which those behind max_window_layers have a window."""
    full = min(count(config, "max_window_layers"), layers)
    return ["full_attention"] * full + ["sliding_attention"] * (layers - full)
