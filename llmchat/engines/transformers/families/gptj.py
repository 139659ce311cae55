"""GPT-J: parallel blocks, and an interleaved rotary embedding of `rotary_dim` dimensions."""

from llmchat.engines.transformers.families.blocks import Linear, Rotary
from llmchat.engines.transformers.families.config_values import (
    Config,
    NoPlan,
    size,
    with_defaults,
)
from llmchat.engines.transformers.families.layers import (
    equal_heads,
    layer_norm,
    parallel,
    plain_mlp,
)
from llmchat.engines.transformers.families.parts import attention, model
from llmchat.engines.transformers.families.plan import Embedding, Layer, Plan, Step
from llmchat.engines.transformers.families.rope import rotary

_DEFAULTS = {
    "activation_function": "gelu_new",
    "max_position_embeddings": 2048,
    "rotary_dim": 64,
}
NAMES = {
    "n_embd": "hidden_size",
    "n_head": "num_attention_heads",
    "n_layer": "num_hidden_layers",
    "n_positions": "max_position_embeddings",
}


def plan(config: Config) -> Plan:
    config = with_defaults(config, _DEFAULTS, NAMES)
    turned, dim = size(config, "rotary_dim", 0), equal_heads(config)[1]
    if not 0 < turned <= dim:
        raise NoPlan("rotary_dim")
    rope = rotary(config, turned, {"rope_theta": 10000.0}, interleaved=True)
    return model(
        config,
        [_layer(config, index, rope) for index in range(size(config, "num_hidden_layers"))],
        layer_norm(config, "transformer.ln_f", eps="layer_norm_epsilon"),
        embedding=Embedding("transformer.wte.weight"),
        longest=size(config, "max_position_embeddings"),
    )


def _layer(config: Config, index: int, rope: Rotary) -> Layer:
    prefix, hidden = f"transformer.h.{index}.", size(config, "hidden_size")
    output = Linear(f"{prefix}attn.out_proj", hidden, hidden)
    heads = attention(config, f"{prefix}attn.", rotary=rope, output=output)
    inner = size(config, "n_inner", 4 * hidden)
    up, down = f"{prefix}mlp.fc_in", f"{prefix}mlp.fc_out"
    mlp = plain_mlp(config, up, down, inner, "activation_function")
    norm = layer_norm(config, f"{prefix}ln_1", eps="layer_norm_epsilon")
    return parallel(Step(heads, norm), Step(mlp, norm))
