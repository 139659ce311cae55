"""Gemma 1, 2 and the text of Gemma 3 (Gemma team, 2024 and 2025).

Norms multiply by 1 + weight; the embedding is scaled; Gemma 2 and 3 also norm the output of a
block, and have sliding windows.
"""

from dataclasses import replace
from typing import Any

from llmchat.engines.transformers.families.blocks import Attention, Mlp, Norm, Rotary
from llmchat.engines.transformers.families.config_values import (
    Config,
    NoPlan,
    number,
    size,
    with_defaults,
)
from llmchat.engines.transformers.families.layers import (
    every_nth_full,
    head_norms,
    kinds_of_layers,
    pre_norm_layer,
    windows_of,
)
from llmchat.engines.transformers.families.parts import (
    activation,
    attention,
    gated_mlp,
    head_sizes,
    model,
    rms,
    sequential,
)
from llmchat.engines.transformers.families.plan import Embedding, Layer, Plan, Step
from llmchat.engines.transformers.families.rope import rotary, scaling_of_kind

_DEFAULTS: dict[str, Config] = {
    "gemma": {
        "head_dim": 256,
        "hidden_size": 3072,
        "intermediate_size": 24576,
        "max_position_embeddings": 8192,
        "num_attention_heads": 16,
        "num_hidden_layers": 28,
        "num_key_value_heads": 16,
        "tie_word_embeddings": True,
        "vocab_size": 256000,
    },
    "gemma2": {
        "attn_logit_softcapping": 50.0,
        "final_logit_softcapping": 30.0,
        "head_dim": 256,
        "hidden_size": 2304,
        "intermediate_size": 9216,
        "max_position_embeddings": 8192,
        "num_attention_heads": 8,
        "num_hidden_layers": 26,
        "num_key_value_heads": 4,
        "query_pre_attn_scalar": 256,
        "sliding_window": 4096,
        "sliding_window_pattern": 2,
        "tie_word_embeddings": True,
        "vocab_size": 256000,
    },
    "gemma3_text": {
        "head_dim": 256,
        "hidden_size": 2304,
        "intermediate_size": 9216,
        "max_position_embeddings": 131072,
        "num_attention_heads": 8,
        "num_hidden_layers": 26,
        "num_key_value_heads": 4,
        "query_pre_attn_scalar": 256,
        "sliding_window": 4096,
        "sliding_window_pattern": 6,
        "tie_word_embeddings": True,
        "vocab_size": 262208,
    },
}
# The key of a base frequency and its default, by the kind of layer (Gemma 3).
_THETAS = {
    "full_attention": ("rope_theta", 1e6),
    "sliding_attention": ("rope_local_base_freq", 1e4),
}


def plan(config: Config) -> Plan:
    kind = str(config["model_type"])
    config = with_defaults(config, _DEFAULTS[kind])
    if config.get("use_bidirectional_attention"):
        raise NoPlan("use_bidirectional_attention")
    layers = _first_layers(config) if kind == "gemma" else _later_layers(config, kind)
    embedding = Embedding("model.embed_tokens.weight", size(config, "hidden_size") ** 0.5)
    made = model(config, layers, norm(config, "model.norm"), embedding=embedding)
    return with_softcap(config, made)


def norm(config: Config, module: str) -> Norm:
    return rms(config, f"{module}.weight", offset=1.0)


def with_softcap(config: Config, made: Plan) -> Plan:
    """The plan with final_logit_softcapping, if there is one."""
    softcap = number(config, "final_logit_softcapping", 0.0, least=0.0)
    return replace(made, head=replace(made.head, softcap=softcap))


def _first_layers(config: Config) -> list[Layer]:
    """Those of Gemma 1: its configs write `gelu` for the tanh approximation."""
    rope = rotary(config, head_sizes(config)[2])
    kind = config.get("hidden_act")
    act = "gelu_tanh" if kind == "gelu" else activation(config, default="gelu_pytorch_tanh")
    layers = []
    for index in range(size(config, "num_hidden_layers")):
        prefix = f"model.layers.{index}."
        heads = attention(config, f"{prefix}self_attn.", rotary=rope)
        mlp = gated_mlp(config, f"{prefix}mlp.", activation=act)
        layers.append(pre_norm_layer(config, prefix, heads, mlp, offset=1.0))
    return layers


def _later_layers(config: Config, kind: str) -> list[Layer]:
    layers = size(config, "num_hidden_layers")
    nth = size(config, "sliding_window_pattern")
    kinds = kinds_of_layers(config, layers, every_nth_full(layers, nth))
    windows, ropes = windows_of(config, kinds), _rotaries(config, kind)
    act = activation(config, "hidden_activation", "gelu_pytorch_tanh")
    made = []
    for index in range(layers):
        prefix = f"model.layers.{index}."
        heads = _attention(config, kind, f"{prefix}self_attn.", ropes[kinds[index]], windows[index])
        mlp = gated_mlp(config, f"{prefix}mlp.", activation=act)
        made.append(sandwiched(config, prefix, heads, mlp))
    return made


def _rotaries(config: Config, kind: str) -> dict[str, Rotary]:
    dim = head_sizes(config)[2]
    if kind == "gemma2":
        return dict.fromkeys(_THETAS, rotary(config, dim))
    return {
        layer: rotary(config, dim, scaling_of_kind(config, layer, *theta))
        for layer, theta in _THETAS.items()
    }


def _attention(config: Config, kind: str, prefix: str, rope: Rotary, window: int) -> Attention:
    options: dict[str, Any] = {
        "scale": number(config, "query_pre_attn_scalar", 256.0, least=1e-9) ** -0.5,
        "rotary": rope,
        "window": window,
    }
    if kind == "gemma2":
        options["softcap"] = number(config, "attn_logit_softcapping", 0.0, least=0.0)
    else:
        options |= head_norms(config, prefix, head_sizes(config), offset=1.0)
    return attention(config, prefix, **options)


def sandwiched(config: Config, prefix: str, heads: Attention, mlp: Mlp) -> Layer:
    """A layer with norms before and behind both of its blocks."""
    return sequential(
        Step(
            heads,
            norm(config, f"{prefix}input_layernorm"),
            norm(config, f"{prefix}post_attention_layernorm"),
        ),
        Step(
            mlp,
            norm(config, f"{prefix}pre_feedforward_layernorm"),
            norm(config, f"{prefix}post_feedforward_layernorm"),
        ),
    )
