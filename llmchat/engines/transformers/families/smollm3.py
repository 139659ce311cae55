"""SmolLM3: Llama with some layers without a rotary embedding (NoPE)."""

from llmchat.engines.transformers.families.blocks import Rotary
from llmchat.engines.transformers.families.config_values import (
    Config,
    flag,
    size,
    sizes,
    with_defaults,
)
from llmchat.engines.transformers.families.layers import (
    kinds_of_layers,
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
from llmchat.errors import Mismatch

_DEFAULTS = {
    "max_position_embeddings": 32768,
    "no_rope_layer_interval": 4,
    "num_key_value_heads": 4,
    "rope_theta": 2000000.0,
    "tie_word_embeddings": True,
}


def plan(config: Config) -> Plan:
    config = with_defaults(config, _DEFAULTS)
    layers = size(config, "num_hidden_layers")
    rope, turns = rotary(config, head_sizes(config)[2]), _rotated(config, layers)
    windows = _windows(config, turns)
    return model(
        config,
        [
            _layer(config, index, rope if turns[index] else None, windows[index])
            for index in range(layers)
        ],
        rms(config, "model.norm.weight"),
    )


def _rotated(config: Config, layers: int) -> list[bool]:
    """Which layers have the rotary embedding: `no_rope_layers` is 1 for those that do."""
    nth = size(config, "no_rope_layer_interval")
    if config.get("no_rope_layers") is None:
        return [(index + 1) % nth != 0 for index in range(layers)]
    turns = [one != 0 for one in sizes(config, "no_rope_layers")]
    if len(turns) < layers:
        raise Mismatch(
            f"config.json: `no_rope_layers` has {len(turns)} entries for {layers} layers"
        )
    return turns


def _windows(config: Config, turns: list[bool]) -> list[int]:
    if not flag(config, "use_sliding_window"):
        return [0] * len(turns)
    kinds = ["full_attention" if turn else "sliding_attention" for turn in turns]
    return windows_of(config, kinds_of_layers(config, len(turns), kinds))


def _layer(config: Config, index: int, rope: Rotary | None, window: int) -> Layer:
    prefix = f"model.layers.{index}."
    heads = attention(config, f"{prefix}self_attn.", rotary=rope, window=window)
    return pre_norm_layer(config, prefix, heads, gated_mlp(config, f"{prefix}mlp."))
