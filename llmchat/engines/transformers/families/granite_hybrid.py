"""Granite 4: Mamba-2 and a few layers of attention; dense, or with experts and a shared MLP."""

from llmchat.engines.transformers.families.blocks import (
    Attention,
    Block,
    Experts,
    Linear,
    Mamba2,
    Mlp,
    Rotary,
)
from llmchat.engines.transformers.families.config_values import (
    Config,
    check_divides,
    count,
    invalid,
    names,
    number,
    size,
)
from llmchat.engines.transformers.families.expert_parts import Views
from llmchat.engines.transformers.families.granite_moe import (
    expert_views,
    granite_experts,
    shared_mlp,
)
from llmchat.engines.transformers.families.parts import (
    activation,
    attention,
    head_sizes,
    model,
    rms,
    sequential,
)
from llmchat.engines.transformers.families.plan import Embedding, Head, Layer, Plan, Step
from llmchat.engines.transformers.families.recurrent_parts import mamba2
from llmchat.engines.transformers.families.rope import rotary

_KINDS = {
    "mamba": "mamba",
    "linear_attention": "mamba",
    "attention": "attention",
    "full_attention": "attention",
}


def plan(config: Config) -> Plan | None:
    config = {key: value for key, value in config.items() if value is not None}
    turns = config.get("position_embedding_type") == "rope"
    rope = rotary(config, head_sizes(config)[2]) if turns else None
    if (turns and rope is None) or activation(config) != "silu":
        return None
    layers = [_layer(config, index, kind, rope) for index, kind in enumerate(_kinds(config))]
    hidden, vocabulary = size(config, "hidden_size"), size(config, "vocab_size")
    embedding = Embedding("model.embed_tokens.weight", number(config, "embedding_multiplier", 1.0))
    scale = 1 / number(config, "logits_scaling", 1.0, least=1e-6)
    return model(
        config,
        layers,
        rms(config, "model.norm.weight"),
        embedding=embedding,
        head=Head(Linear("lm_head", vocabulary, hidden), scale=scale),
    )


def views(config: Config) -> Views:
    found: Views = []
    for index in range(size(config, "num_hidden_layers") if _experts(config) else 0):
        found += expert_views(config, f"model.layers.{index}.")
    return found


def _kinds(config: Config) -> list[str]:
    layers = size(config, "num_hidden_layers")
    found = names(config, "layer_types", layers) or names(config, "layers_block_type", layers)
    kinds = []
    for kind in found or ["mamba"] * layers:
        if kind not in _KINDS:
            raise invalid("layer_types", kind)
        kinds.append(_KINDS[kind])
    return kinds


def _layer(config: Config, index: int, kind: str, rope: Rotary | None) -> Layer:
    prefix = f"model.layers.{index}."
    scale = number(config, "residual_multiplier", 1.0)
    mixer: Block = (
        _mamba(config, f"{prefix}mamba.")
        if kind == "mamba"
        else _attention(config, f"{prefix}self_attn.", rope)
    )
    return sequential(
        Step(mixer, rms(config, f"{prefix}input_layernorm.weight"), scale=scale),
        Step(
            _mlp(config, prefix),
            rms(config, f"{prefix}post_attention_layernorm.weight"),
            scale=scale,
        ),
    )


def _attention(config: Config, prefix: str, rope: Rotary | None) -> Attention:
    scale = number(config, "attention_multiplier", 1.0)
    return attention(config, prefix, rotary=rope, scale=scale)


def _mamba(config: Config, prefix: str) -> Mamba2:
    inner = int(number(config, "mamba_expand", 2) * size(config, "hidden_size"))
    groups = size(config, "mamba_n_groups", 1)
    check_divides(groups, inner, "groups of a norm")
    norm = rms(config, f"{prefix}norm.weight", inner, group=inner // groups)
    return mamba2(config, prefix, inner, norm=norm)


def _mlp(config: Config, prefix: str) -> Mlp | Experts:
    config = {"shared_intermediate_size": 1024} | dict(config)
    if _experts(config):
        return granite_experts(config, prefix)
    return shared_mlp(config, prefix)


def _experts(config: Config) -> int:
    return count(config, "num_local_experts", 8)
