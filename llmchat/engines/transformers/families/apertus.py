"""Apertus: QK norm, and an MLP without a gate whose activation is xIELU (Huang & Schlag 2024)."""

from llmchat.engines.transformers.families.blocks import Linear, Mlp, Rotary
from llmchat.engines.transformers.families.config_values import Config, size, with_defaults
from llmchat.engines.transformers.families.layers import head_norms, plain_mlp, pre_norm_layer
from llmchat.engines.transformers.families.parts import attention, head_sizes, model, rms
from llmchat.engines.transformers.families.plan import Layer, Plan
from llmchat.engines.transformers.families.rope import rotary

_DEFAULTS = {
    "hidden_act": "xielu",
    "max_position_embeddings": 65536,
    "rms_norm_eps": 1e-5,
    "rope_theta": 12000000.0,
}
_ROPE = {
    "rope_type": "llama3",
    "rope_theta": 12000000.0,
    "factor": 8.0,
    "original_max_position_embeddings": 8192,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
}


def plan(config: Config) -> Plan:
    config = with_defaults(config, _DEFAULTS)
    given = config.get("rope_parameters") or config.get("rope_scaling")
    config = config if given else config | {"rope_parameters": _ROPE}
    rope = rotary(config, head_sizes(config)[2])
    return model(
        config,
        [_layer(config, index, rope) for index in range(size(config, "num_hidden_layers"))],
        rms(config, "model.norm.weight"),
    )


def _layer(config: Config, index: int, rope: Rotary) -> Layer:
    prefix = f"model.layers.{index}."
    norms = head_norms(config, f"{prefix}self_attn.", head_sizes(config))
    heads = attention(config, f"{prefix}self_attn.", rotary=rope, **norms)
    names = "attention_layernorm", "feedforward_layernorm"
    return pre_norm_layer(config, prefix, heads, _mlp(config, f"{prefix}mlp."), names)


def _mlp(config: Config, prefix: str) -> Mlp:
    """beta and epsilon of xIELU are 0.5 and -1e-6."""
    hidden, inner = size(config, "hidden_size"), size(config, "intermediate_size")
    up, down = f"{prefix}up_proj", f"{prefix}down_proj"
    if config["hidden_act"] != "xielu":
        return plain_mlp(config, up, down, inner)
    parameters = f"{prefix}act_fn.alpha_p", f"{prefix}act_fn.alpha_n"
    inputs = (Linear(up, inner, hidden),)
    return Mlp(inputs, Linear(down, hidden, inner), "xielu", parameters=parameters)
