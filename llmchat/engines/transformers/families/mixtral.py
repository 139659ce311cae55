"""Mixtral 8x7B and 8x22B."""

from llmchat.engines.transformers.families.blocks import Experts, Rotary
from llmchat.engines.transformers.families.config_values import Config, count, size, with_defaults
from llmchat.engines.transformers.families.expert_parts import STACKED, Views, routed, separate
from llmchat.engines.transformers.families.layers import pre_norm_layer
from llmchat.engines.transformers.families.parts import (
    attention,
    head_sizes,
    layer_prefix,
    model,
    rms,
)
from llmchat.engines.transformers.families.plan import Layer, Plan
from llmchat.engines.transformers.families.rope import rotary
from llmchat.engines.transformers.families.views import View

_DEFAULTS = {"num_key_value_heads": 8, "rms_norm_eps": 1e-5, "rope_theta": 1e6}
# gate, up and down.
_NAMES = ("w1", "w3", "w2")


def plan(config: Config) -> Plan:
    config = with_defaults(config, _DEFAULTS)
    rope = rotary(config, head_sizes(config)[2])
    layers = [_layer(config, index, rope) for index in range(size(config, "num_hidden_layers"))]
    return model(config, layers, rms(config, "model.norm.weight"))


def views(config: Config) -> Views:
    found: Views = []
    for prefix in map(layer_prefix, range(size(config, "num_hidden_layers"))):
        expert, sizes = f"{prefix}block_sparse_moe.experts.", _sizes(config)
        found += STACKED.views(f"{prefix}mlp.experts.", expert, *sizes, _NAMES)
        found.append((f"{prefix}block_sparse_moe.gate.weight", View(f"{prefix}mlp.gate.weight")))
    return found


def _layer(config: Config, index: int, rope: Rotary) -> Layer:
    prefix, window = layer_prefix(index), count(config, "sliding_window")
    heads = attention(config, f"{prefix}self_attn.", rotary=rope, window=window)
    return pre_norm_layer(config, prefix, heads, _experts(config, prefix))


def _experts(config: Config, prefix: str) -> Experts:
    mlps = separate(config, f"{prefix}block_sparse_moe.experts.", *_sizes(config), _NAMES)
    top = size(config, "num_experts_per_tok", 2)
    return routed(config, f"{prefix}block_sparse_moe.gate", mlps, top, normalised=True)


def _sizes(config: Config) -> tuple[int, int]:
    """Experts, and the inner width of one."""
    return size(config, "num_local_experts", 8), size(config, "intermediate_size")
