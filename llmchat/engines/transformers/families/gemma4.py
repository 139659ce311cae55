"""The text of Gemma 4: two head sizes, per-layer embeddings, experts next to the MLP, and last
layers that share the keys and values of earlier ones.
"""

from dataclasses import dataclass, replace
from typing import Any

from llmchat.engines.transformers.families.blocks import (
    Attention,
    Experts,
    Heads,
    LayerInput,
    Linear,
    Mlp,
    Norm,
    Rotary,
)
from llmchat.engines.transformers.families.config_values import (
    Config,
    NoPlan,
    count,
    flag,
    invalid,
    size,
    with_defaults,
)
from llmchat.engines.transformers.families.expert_parts import STACKED, routed, separate
from llmchat.engines.transformers.families.gemma import with_softcap
from llmchat.engines.transformers.families.layers import (
    every_nth_full,
    head_norms,
    kinds_of_layers,
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
from llmchat.engines.transformers.families.plan import (
    Embedding,
    Layer,
    LayerInputs,
    Plan,
    Step,
)
from llmchat.engines.transformers.families.rope import rotary
from llmchat.engines.transformers.families.views import View
from llmchat.errors import Mismatch

_DEFAULTS: dict[str, Config] = {
    "gemma4_text": {
        "head_dim": 256,
        "hidden_size": 2304,
        "hidden_size_per_layer_input": 256,
        "intermediate_size": 9216,
        "max_position_embeddings": 131072,
        "num_attention_heads": 8,
        "num_hidden_layers": 30,
        "num_key_value_heads": 4,
        "sliding_window": 512,
        "tie_word_embeddings": True,
        "vocab_size": 262144,
        "vocab_size_per_layer_input": 262144,
    },
    "gemma4_unified_text": {
        "head_dim": 256,
        "hidden_size": 2304,
        "intermediate_size": 9216,
        "max_position_embeddings": 262144,
        "num_attention_heads": 8,
        "num_hidden_layers": 30,
        "num_key_value_heads": 4,
        "sliding_window": 1024,
        "tie_word_embeddings": True,
        "vocab_size": 262144,
    },
}
_ROPES: dict[str, dict[str, Any]] = {
    "full_attention": {
        "rope_type": "proportional",
        "partial_rotary_factor": 0.25,
        "rope_theta": 1000000.0,
    },
    "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0},
}


@dataclass(frozen=True)
class _Place:
    """What the place of a layer decides. config: with its head size and its heads of keys; shares:
    the layer whose keys and values it uses.
    """

    config: Config
    index: int
    window: int
    rope: Rotary
    shares: int | None

    @property
    def prefix(self) -> str:
        return f"model.layers.{self.index}."


def plan(config: Config) -> Plan:
    config = with_defaults(config, _DEFAULTS[config["model_type"]])
    if config.get("use_bidirectional_attention") == "all":
        raise NoPlan("use_bidirectional_attention")
    made = model(
        config,
        [_layer(place) for place in _places(config)],
        rms(config, "model.norm.weight"),
        embedding=Embedding("model.embed_tokens.weight", size(config, "hidden_size") ** 0.5),
        layer_inputs=layer_inputs(config),
    )
    return with_softcap(config, made)


def views(config: Config) -> list[tuple[str, View]]:
    config = with_defaults(config, _DEFAULTS[config["model_type"]])
    if not flag(config, "enable_moe_block"):
        return []
    experts, inner = size(config, "num_experts"), size(config, "moe_intermediate_size")
    return [
        view
        for index in range(size(config, "num_hidden_layers"))
        for prefix in (f"model.layers.{index}.experts.",)
        for view in STACKED.views(prefix, prefix, experts, inner)
    ]


def _places(config: Config) -> list[_Place]:
    layers = size(config, "num_hidden_layers")
    kinds = kinds_of_layers(config, layers, every_nth_full(layers, 6))
    # transformers requires it of the last layer.
    kinds[-1] = "full_attention"
    windows, shares = windows_of(config, kinds), shares_of(config, kinds)
    own = [_of_layer(config, index, kind) for index, kind in enumerate(kinds)]
    ropes = {kind: _rotary(own[kinds.index(kind)], kind) for kind in set(kinds)}
    return [
        _Place(own[index], index, windows[index], ropes[kind], shares[index])
        for index, kind in enumerate(kinds)
    ]


def _of_layer(config: Config, index: int, kind: str) -> dict[str, Any]:
    """The config with the head size and the heads of keys of a layer."""
    given = config.get("per_layer_config")
    if isinstance(given, dict):
        found = given.get(str(index)) or {}
        if not isinstance(found, dict):
            raise invalid("per_layer_config", given)
        if not found.keys() <= {"head_dim", "num_key_value_heads"}:
            raise NoPlan("per_layer_config")
        return {**config, **found}
    if kind == "sliding_attention":
        return dict(config)
    own = {**config, "head_dim": size(config, "global_head_dim", 512)}
    if flag(config, "attention_k_eq_v") and config.get("num_global_key_value_heads"):
        own["num_key_value_heads"] = config["num_global_key_value_heads"]
    return own


def _rotary(config: Config, kind: str) -> Rotary:
    given = config.get("rope_parameters") or _ROPES
    scaling = given.get(kind) if isinstance(given, dict) else None
    if not isinstance(scaling, dict):
        raise NoPlan("rope_parameters")
    return rotary(config, head_sizes(config)[2], scaling)


def shares_of(config: Config, kinds: list[str]) -> list[int | None]:
    """For each of the last num_kv_shared_layers layers the last one before them of its kind."""
    first = len(kinds) - count(config, "num_kv_shared_layers")
    if first < 1 or set(kinds[:first]) != set(kinds):
        raise Mismatch(f"config.json: no layer has keys for the {len(kinds) - first} that share")
    last = {kind: index for index, kind in enumerate(kinds[:first])}
    return [None] * first + [last[kind] for kind in kinds[first:]]


def _layer(place: _Place) -> Layer:
    names = "input", "post_attention", "post_feedforward"
    before, behind, last = (
        rms(place.config, f"{place.prefix}{name}_layernorm.weight") for name in names
    )
    steps = [Step(_attention(place), before, behind)]
    if flag(place.config, "enable_moe_block"):
        steps.append(Step(_experts(place), None, last))
    else:
        steps.append(Step(_mlp(place), _norm_before_mlp(place), last))
    if _input_width(place.config):
        norm = rms(place.config, f"{place.prefix}post_per_layer_input_norm.weight")
        steps.append(Step(_layer_input(place), None, norm))
    return replace(sequential(*steps), factor=f"{place.prefix}layer_scalar")


def _attention(place: _Place) -> Attention:
    """Scores are not scaled: queries and keys are normed."""
    config, prefix = place.config, f"{place.prefix}self_attn."
    heads, kv_heads, dim = head_sizes(config)
    norms = head_norms(config, prefix, (heads, kv_heads, dim))
    value_norm = replace(norms["key_norm"], weight=None)
    block = attention(
        config, prefix, rotary=place.rope, window=place.window, scale=1.0, value_norm=value_norm,
        **norms,
    )  # fmt: skip
    if place.shares is not None:
        # Each layer has as many blocks.
        return sharing(block, place.shares * (3 if _input_width(config) else 2))
    if flag(config, "attention_k_eq_v") and not place.window:
        keys = replace(block.keys)
        return replace(block, inputs=block.inputs[:2], values=keys)
    return block


def sharing(block: Attention, shares: int) -> Attention:
    """The same with queries of its own only, and the keys and values of block number `shares`."""
    sizes = Heads(block.keys.count, block.keys.width, 0, block.keys.width)
    return replace(
        block, inputs=block.inputs[:1], keys=sizes, values=sizes, key_norm=None, value_norm=None,
        shares=shares,
    )  # fmt: skip


def _mlp(place: _Place) -> Mlp:
    """Layers that share keys can have twice the width."""
    wide = place.shares is not None and flag(place.config, "use_double_wide_mlp")
    inner = size(place.config, "intermediate_size") * (2 if wide else 1)
    return gated_mlp(place.config, f"{place.prefix}mlp.", inner, activation=_act(place.config))


def _norm_before_mlp(place: _Place) -> Norm:
    return rms(place.config, f"{place.prefix}pre_feedforward_layernorm.weight")


def _experts(place: _Place) -> Experts:
    config, prefix = place.config, place.prefix
    inner, width = size(config, "moe_intermediate_size"), size(config, "hidden_size")
    count = size(config, "num_experts")
    experts = separate(config, f"{prefix}experts.", count, inner, activation=_act(config))
    return routed(
        config,
        f"{prefix}router.proj",
        experts,
        size(config, "top_k_experts"),
        normalised=True,
        expert_scale=f"{prefix}router.per_expert_scale",
        router_norm=rms(config, f"{prefix}router.scale", scale=width**-0.5),
        expert_norm=rms(config, f"{prefix}pre_feedforward_layernorm_2.weight"),
        expert_post_norm=rms(config, f"{prefix}post_feedforward_layernorm_2.weight"),
        shared=_mlp(place),
        shared_norm=_norm_before_mlp(place),
        shared_post_norm=rms(config, f"{prefix}post_feedforward_layernorm_1.weight"),
    )


def _layer_input(place: _Place) -> LayerInput:
    hidden, width = size(place.config, "hidden_size"), _input_width(place.config)
    gate = Linear(f"{place.prefix}per_layer_input_gate", width, hidden)
    output = Linear(f"{place.prefix}per_layer_projection", hidden, width)
    return LayerInput(gate, output, place.index, width, _act(place.config))


def layer_inputs(config: Config) -> LayerInputs | None:
    width, hidden = _input_width(config), size(config, "hidden_size")
    if not width:
        return None
    out = size(config, "num_hidden_layers") * width
    return LayerInputs(
        embedding="model.embed_tokens_per_layer.weight",
        vocabulary=size(config, "vocab_size_per_layer_input"),
        scale=width**0.5,
        linear=Linear("model.per_layer_model_projection", out, hidden),
        linear_scale=hidden**-0.5,
        norm=rms(config, "model.per_layer_projection_norm.weight", out, group=width),
        factor=2**-0.5,
    )


def _input_width(config: Config) -> int:
    return count(config, "hidden_size_per_layer_input")


def _act(config: Config) -> Any:
    return activation(config, "hidden_activation", "gelu_pytorch_tanh")
