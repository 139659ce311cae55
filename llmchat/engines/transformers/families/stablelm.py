"""StableLM 2 and Zephyr 3B: Llama with LayerNorms, and rotary embeddings of a quarter of a head."""

from typing import Any

from llmchat.engines.transformers.families.blocks import Norm, Rotary
from llmchat.engines.transformers.families.config_values import Config, flag, size, with_defaults
from llmchat.engines.transformers.families.layers import layer_norm, parallel
from llmchat.engines.transformers.families.parts import (
    attention,
    gated_mlp,
    head_sizes,
    model,
    sequential,
)
from llmchat.engines.transformers.families.plan import Layer, Plan, Step
from llmchat.engines.transformers.families.rope import rotary
from llmchat.engines.transformers.families.views import Joined

_DEFAULTS = {
    "max_position_embeddings": 4096,
    "num_key_value_heads": 32,
    "partial_rotary_factor": 0.25,
}


def plan(config: Config) -> Plan:
    config = with_defaults(config, _DEFAULTS)
    rope = rotary(config, head_sizes(config)[2])
    return model(
        config,
        [_layer(config, index, rope) for index in range(size(config, "num_hidden_layers"))],
        layer_norm(config, "model.norm"),
    )


def views(config: Config) -> list[tuple[str, Joined]]:
    """Each head of queries and keys has a norm of its own: their weights become one tensor."""
    config = with_defaults(config, _DEFAULTS)
    if not flag(config, "qk_layernorm"):
        return []
    heads, kv_heads, _ = head_sizes(config)
    found = []
    for index in range(size(config, "num_hidden_layers")):
        for name, count in (("q_layernorm", heads), ("k_layernorm", kv_heads)):
            module = f"{_prefix(index)}self_attn.{name}"
            pieces = tuple(f"{module}.norms.{head}.weight" for head in range(count))
            found.append((f"{module}.weight", Joined(pieces)))
    return found


def _layer(config: Config, index: int, rope: Rotary) -> Layer:
    prefix = _prefix(index)
    options: dict[str, Any] = {"rotary": rope}
    if flag(config, "qk_layernorm"):
        options |= _head_norms(config, f"{prefix}self_attn.")
    heads = attention(config, f"{prefix}self_attn.", **options)
    mlp, norm = gated_mlp(config, f"{prefix}mlp."), layer_norm(config, f"{prefix}input_layernorm")
    if flag(config, "use_parallel_residual"):
        return parallel(Step(heads, norm), Step(mlp, norm))
    between = layer_norm(config, f"{prefix}post_attention_layernorm")
    return sequential(Step(heads, norm), Step(mlp, between))


def _head_norms(config: Config, prefix: str) -> dict[str, Norm]:
    heads, kv_heads, dim = head_sizes(config)
    return {
        name: layer_norm(config, f"{prefix}{module}", count * dim, has_bias=False, group=dim)
        for name, module, count in (
            ("query_norm", "q_layernorm", heads),
            ("key_norm", "k_layernorm", kv_heads),
        )
    }


def _prefix(index: int) -> str:
    return f"model.layers.{index}."
