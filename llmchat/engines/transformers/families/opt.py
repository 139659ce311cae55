"""OPT and Galactica: learned position embeddings whose first two rows are unused, ReLU.

OPT 350M, which norms after its blocks and projects its embedding, has no plan.
"""

from llmchat.engines.transformers.families.blocks import Linear, Norm
from llmchat.engines.transformers.families.config_values import (
    Config,
    NoPlan,
    flag,
    size,
    with_defaults,
)
from llmchat.engines.transformers.families.layers import plain_mlp
from llmchat.engines.transformers.families.parts import attention, model, sequential
from llmchat.engines.transformers.families.plan import Embedding, Layer, Plan, Step

_DEFAULTS = {
    "activation_function": "relu",
    "max_position_embeddings": 2048,
    "tie_word_embeddings": True,
}
_UNUSED = 2


def plan(config: Config) -> Plan:
    config = with_defaults(config, _DEFAULTS)
    hidden = size(config, "hidden_size")
    projects = size(config, "word_embed_proj_dim", hidden) != hidden
    if projects or not flag(config, "do_layer_norm_before", True):
        raise NoPlan("do_layer_norm_before")
    positions = size(config, "max_position_embeddings")
    has_norm = not flag(config, "_remove_final_layer_norm")
    return model(
        config,
        [_layer(config, index) for index in range(size(config, "num_hidden_layers"))],
        _norm(config, "model.decoder.final_layer_norm") if has_norm else None,
        embedding=Embedding(
            "model.decoder.embed_tokens.weight",
            positions="model.decoder.embed_positions.weight",
            position_count=positions + _UNUSED,
            offset=_UNUSED,
        ),
        longest=positions,
    )


def _layer(config: Config, index: int) -> Layer:
    prefix, hidden = f"model.decoder.layers.{index}.", size(config, "hidden_size")
    output = Linear(f"{prefix}self_attn.out_proj", hidden, hidden)
    heads = attention(config, f"{prefix}self_attn.", output=output)
    inner = size(config, "ffn_dim")
    mlp = plain_mlp(config, f"{prefix}fc1", f"{prefix}fc2", inner, "activation_function")
    return sequential(
        Step(heads, _norm(config, f"{prefix}self_attn_layer_norm")),
        Step(mlp, _norm(config, f"{prefix}final_layer_norm")),
    )


def _norm(config: Config, module: str) -> Norm:
    has_weights = flag(config, "layer_norm_elementwise_affine", True)
    weight, bias = (f"{module}.{name}" if has_weights else None for name in ("weight", "bias"))
    return Norm(size(config, "hidden_size"), 1e-5, weight, bias, kind="layer")
