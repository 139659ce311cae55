"""GPT-2, and GPT-BigCode (StarCoder, SantaCoder): learned position embeddings.

The matrices of GPT-2 are [in, out]; GPT-BigCode has one head of keys and values.
"""

from llmchat.engines.transformers.families.blocks import Attention, Heads, Norm
from llmchat.engines.transformers.families.config_values import (
    Config,
    NoPlan,
    flag,
    size,
    with_defaults,
)
from llmchat.engines.transformers.families.gptj import NAMES
from llmchat.engines.transformers.families.layers import (
    equal_heads,
    heads_in_turn,
    joined_attention,
    layer_norm,
    plain_mlp,
)
from llmchat.engines.transformers.families.parts import model, separate_heads, sequential
from llmchat.engines.transformers.families.plan import Embedding, Layer, Plan, Step
from llmchat.engines.transformers.families.views import View

_DEFAULTS: dict[str, Config] = {
    "gpt2": {
        "activation_function": "gelu_new",
        "max_position_embeddings": 1024,
        "tie_word_embeddings": True,
    },
    "gpt_bigcode": {
        "activation_function": "gelu_pytorch_tanh",
        "max_position_embeddings": 1024,
        "multi_query": True,
        "tie_word_embeddings": True,
    },
}


def plan(config: Config) -> Plan:
    config = with_defaults(config, _DEFAULTS[config["model_type"]], NAMES)
    if flag(config, "add_cross_attention"):
        raise NoPlan("add_cross_attention")
    positions = size(config, "max_position_embeddings")
    return model(
        config,
        [_layer(config, index) for index in range(size(config, "num_hidden_layers"))],
        _norm(config, "transformer.ln_f"),
        embedding=Embedding(
            "transformer.wte.weight",
            positions="transformer.wpe.weight",
            position_count=positions,
        ),
        longest=positions,
    )


def views(config: Config) -> list[tuple[str, View]]:
    """The matrices of GPT-2 as [out, in]."""
    if config["model_type"] != "gpt2":
        return []
    names = "attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj"
    layers = size(with_defaults(config, {}, NAMES), "num_hidden_layers")
    weights = [f"{_prefix(index)}{name}.weight" for index in range(layers) for name in names]
    return [(weight, View(weight, is_transposed=True)) for weight in weights]


def _layer(config: Config, index: int) -> Layer:
    prefix = _prefix(index)
    inner = size(config, "n_inner", 4 * size(config, "hidden_size"))
    up, down = f"{prefix}mlp.c_fc", f"{prefix}mlp.c_proj"
    mlp = plain_mlp(config, up, down, inner, "activation_function")
    return sequential(
        Step(_attention(config, index), _norm(config, f"{prefix}ln_1")),
        Step(mlp, _norm(config, f"{prefix}ln_2")),
    )


def _attention(config: Config, index: int) -> Attention:
    prefix = f"{_prefix(index)}attn."
    scale = equal_heads(config)[1] ** -0.5 if flag(config, "scale_attn_weights", True) else 1.0
    if flag(config, "scale_attn_by_inverse_layer_idx"):
        scale /= index + 1
    heads = _heads(config)
    return joined_attention(config, f"{prefix}c_attn", f"{prefix}c_proj", heads, scale=scale)


def _heads(config: Config) -> tuple[Heads, Heads, Heads]:
    heads, dim = equal_heads(config)
    if config["model_type"] == "gpt2":
        return separate_heads(heads, heads, dim)
    return (
        separate_heads(heads, 1, dim) if flag(config, "multi_query") else heads_in_turn(heads, dim)
    )


def _prefix(index: int) -> str:
    return f"transformer.h.{index}."


def _norm(config: Config, module: str) -> Norm:
    return layer_norm(config, module, eps="layer_norm_epsilon")
