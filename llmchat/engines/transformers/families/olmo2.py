"""OLMo 2 and 3: norms only after the blocks, and QK norm over all heads together."""

from llmchat.engines.transformers.families.blocks import Rotary
from llmchat.engines.transformers.families.config_values import Config, size, with_defaults
from llmchat.engines.transformers.families.layers import (
    every_nth_full,
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
from llmchat.engines.transformers.families.rope import rotary, scaling_of_kind

_DEFAULTS: dict[str, Config] = {
    "olmo2": {"max_position_embeddings": 2048, "rms_norm_eps": 1e-5},
    "olmo3": {"max_position_embeddings": 2048, "rms_norm_eps": 1e-5, "sliding_window": 4096},
}
_THETA = 500000.0


def plan(config: Config) -> Plan:
    kind = str(config["model_type"])
    config = with_defaults(config, _DEFAULTS[kind])
    layers = size(config, "num_hidden_layers")
    made = _plain_layers(config, layers) if kind == "olmo2" else _sliding_layers(config, layers)
    return model(config, made, rms(config, "model.norm.weight"))


def _plain_layers(config: Config, layers: int) -> list[Layer]:
    rope = rotary(config, head_sizes(config)[2])
    return [_layer(config, index, rope, 0) for index in range(layers)]


def _sliding_layers(config: Config, layers: int) -> list[Layer]:
    """Those of OLMo 3: layers with a window keep the frequencies of the first training."""
    kinds = kinds_of_layers(config, layers, every_nth_full(layers, 4))
    windows, dim = windows_of(config, kinds), head_sizes(config)[2]
    full = rotary(config, dim, scaling_of_kind(config, "full_attention", "rope_theta", _THETA))
    sliding = rotary(config, dim, scaling_of_kind(config, "sliding_attention", "", _THETA))
    return [
        _layer(config, index, sliding if kinds[index] == "sliding_attention" else full, window)
        for index, window in enumerate(windows)
    ]


def _layer(config: Config, index: int, rope: Rotary, window: int) -> Layer:
    prefix = f"model.layers.{index}."
    heads, kv_heads, dim = head_sizes(config)
    block = attention(
        config,
        f"{prefix}self_attn.",
        rotary=rope,
        window=window,
        query_norm=rms(config, f"{prefix}self_attn.q_norm.weight", heads * dim),
        key_norm=rms(config, f"{prefix}self_attn.k_norm.weight", kv_heads * dim),
    )
    return sequential(
        Step(block, None, rms(config, f"{prefix}post_attention_layernorm.weight")),
        Step(
            gated_mlp(config, f"{prefix}mlp."),
            None,
            rms(config, f"{prefix}post_feedforward_layernorm.weight"),
        ),
    )
