"""Hybrids: layers of Gated DeltaNet, Kimi Delta Attention or Mamba-2 between those of attention."""

from typing import Any

from llmchat.gguf_file.architectures.dense import GRANITE
from llmchat.gguf_file.architectures.latent import (
    MLA,
    read_latent_sizes,
    write_latent_sizes,
)
from llmchat.gguf_file.architectures.row import (
    LOCAL_MOE,
    MOE,
    SIGMOID,
    Architecture,
    Config,
    Facts,
    Shapes,
    trunk,
)
from llmchat.gguf_file.header import GgufHeader

_DELTA = {
    "ssm.conv_kernel": "linear_conv_kernel_dim",
    "ssm.state_size": "linear_key_head_dim",
    "ssm.group_count": "linear_num_key_heads",
    "ssm.time_step_rank": "linear_num_value_heads",
}
_SHARED = {"expert_shared_feed_forward_length": "shared_expert_intermediate_size"}
_MAMBA = {
    "ssm.conv_kernel": "mamba_d_conv",
    "ssm.state_size": "mamba_d_state",
    "ssm.group_count": "mamba_n_groups",
    "ssm.time_step_rank": "mamba_n_heads",
}
_NEMOTRON = {
    "ssm.conv_kernel": "conv_kernel",
    "ssm.state_size": "ssm_state_size",
    "ssm.group_count": "n_groups",
    "ssm.time_step_rank": "mamba_num_heads",
    "expert_count": "n_routed_experts",
    "expert_used_count": "num_experts_per_tok",
    "expert_feed_forward_length": "moe_intermediate_size",
    "expert_shared_feed_forward_length": "moe_shared_expert_intermediate_size",
    "expert_group_count": "n_group",
    "expert_group_used_count": "topk_group",
    "expert_weights_scale": "routed_scaling_factor",
    "expert_weights_norm": "norm_topk_prob",
}
_KIMI = {
    "kda.head_dim": "linear_head_dim",
    "ssm.conv_kernel": "linear_conv_kernel_dim",
    "expert_count": "num_experts",
    "expert_used_count": "num_experts_per_token",
    "expert_feed_forward_length": "moe_intermediate_size",
    "expert_shared_count": "num_shared_experts",
    "expert_group_count": "num_expert_group",
    "expert_group_used_count": "topk_group",
    "expert_weights_scale": "routed_scaling_factor",
    "leading_dense_block_count": "first_k_dense_replace",
}


def _read_delta(own: Facts, config: Config, header: GgufHeader) -> Config:
    """Layers of attention by the file's flags, or each so many."""
    layers, every = trunk(own, config), int(own.get("full_attention_interval", 4)) or 4
    flags = own.get("attention.recurrent_layers")
    if not isinstance(flags, list) or len(flags) < layers:
        flags = [(index + 1) % every != 0 for index in range(layers)]
    width = config.get("head_dim") or 256
    return {
        "num_hidden_layers": layers,
        "layer_types": [_MIXERS[bool(flag)] for flag in flags[:layers]],
        "linear_value_head_dim": _divided(own, "ssm.inner_size", "ssm.time_step_rank"),
        "partial_rotary_factor": int(own.get("rope.dimension_count", width // 4)) / width,
    }


_MIXERS = ("full_attention", "linear_attention")


def _divided(own: Facts, inner: str, heads: str) -> int:
    return int(own.get(inner, 0)) // (int(own.get(heads, 0)) or 1)


def _write_delta(config: Facts, shapes: Shapes) -> Config:
    heads = config["linear_num_value_heads"]
    return {
        "ssm.inner_size": heads * config["linear_value_head_dim"],
        "attention.recurrent_layers": [kind == _MIXERS[1] for kind in config["layer_types"]],
    }


def _write_qwen35(config: Facts, shapes: Shapes) -> Config:
    """llama.cpp requires the sections of a rotation by three positions, which are one in a text."""
    rope = config.get("rope_parameters") or {}
    half = int(config["head_dim"] * rope.get("partial_rotary_factor", 0.25)) // 2
    sections = [*rope.get("mrope_section", ()), 0][:4]
    if len(sections) < 4 or sum(sections) != half:
        sections = [(half + 2) // 3, (half + 1) // 3, half // 3, 0]
    return _write_delta(config, shapes) | {"rope.dimension_sections": sections}


def _per_layer(own: Facts, name: str, layers: int) -> list[int]:
    """A number of each layer, of which a file has a list or one for all."""
    found = own.get(name, 0)
    values = found if isinstance(found, list) else [found] * layers
    return [int(value) for value in values[:layers]]


def _read_mamba(own: Facts, config: Config, header: GgufHeader) -> Config:
    return {
        "mamba_d_head": _divided(own, "ssm.inner_size", "ssm.time_step_rank"),
        "mamba_conv_bias": any(name.endswith(".ssm_conv1d.bias") for name in header.tensors),
    }


def _read_falcon_h1(own: Facts, config: Config, header: GgufHeader) -> Config:
    """All factors are in the weights. The norm of Mamba, if there is one, follows the gate."""
    return _read_mamba(own, config, header) | {
        "mamba_d_ssm": own.get("ssm.inner_size"),
        "mamba_rms_norm": "blk.0.ssm_norm.weight" in header.tensors,
        "mamba_norm_before_gate": False,
    }


def _write_falcon_h1(config: Facts, shapes: Shapes) -> Config:
    return {"ssm.inner_size": config["mamba_d_ssm"]}


def _read_granite_hybrid(own: Facts, config: Config, header: GgufHeader) -> Config:
    """A model without experts has the shared MLP only."""
    layers = config["num_hidden_layers"]
    gate = "shexp" if config.get("num_local_experts") else "dense"
    shared = header.tensors.get(_GATES[gate])
    turns = own.get("rope.scaling.finetuned", True)
    return _read_mamba(own, config, header) | {
        "layer_types": _kinds(header, layers),
        "num_key_value_heads": max(_per_layer(own, "attention.head_count_kv", layers)) or 1,
        "mamba_expand": int(own.get("ssm.inner_size", 0)) / config["hidden_size"],
        "shared_intermediate_size": shared.shape[0] if shared else 0,
        "num_local_experts": config.get("num_local_experts", 0),
        "position_embedding_type": "rope" if turns else "nope",
    }


def _kinds(header: GgufHeader, layers: int) -> list[str]:
    """What each layer is, by its tensors: the lists of facts differ with the converter's age."""
    marks = {"ssm_in": "mamba", "attn_q": "attention", "ffn_gate_inp": "moe"}
    return [
        next(
            (
                kind
                for mark, kind in marks.items()
                if f"blk.{index}.{mark}.weight" in header.tensors
            ),
            "mlp",
        )
        for index in range(layers)
    ]


_GATES = {"shexp": "blk.0.ffn_gate_shexp.weight", "dense": "blk.0.ffn_gate.weight"}


_ATTENTION = ("attention", "full_attention")


def _write_granite_hybrid(config: Facts, shapes: Shapes) -> Config:
    heads, shared = config["num_key_value_heads"], config["shared_intermediate_size"]
    kinds = config.get("layer_types") or config["layers_block_type"]
    facts: Config = {
        "attention.head_count_kv": [heads * (kind in _ATTENTION) for kind in kinds],
        "ssm.inner_size": int(config["mamba_expand"] * config["hidden_size"]),
        "rope.scaling.finetuned": config.get("position_embedding_type") == "rope",
    }
    if config.get("num_local_experts"):
        return facts | {"expert_shared_feed_forward_length": shared}
    return facts | {"feed_forward_length": shared}


def _read_nemotron_h(own: Facts, config: Config, header: GgufHeader) -> Config | None:
    """Experts that read latent numbers have no plan."""
    if own.get("moe_latent_size"):
        return None
    layers = trunk(own, config)
    inner = _per_layer(own, "feed_forward_length", layers)
    dense = next((name for name in header.tensors if name.endswith(".ffn_up.weight")), "")
    return {
        "layers_block_type": _kinds(header, layers),
        "num_hidden_layers": layers,
        "num_key_value_heads": max(_per_layer(own, "attention.head_count_kv", layers)) or 1,
        "intermediate_size": header.tensors[dense].shape[0] if dense else max(inner, default=0),
        "mamba_head_dim": _divided(own, "ssm.inner_size", "ssm.time_step_rank"),
        "use_conv_bias": any(name.endswith(".ssm_conv1d.bias") for name in header.tensors),
    }


def _write_nemotron_h(config: Facts, shapes: Shapes) -> Config:
    kinds = [_LETTERS.get(kind, kind) for kind in config["layers_block_type"]]
    heads, sizes = config["num_key_value_heads"], {"mlp": "intermediate_size"}
    sizes["moe"] = "moe_intermediate_size"
    experts: Config = {"expert_shared_count": 1, "expert_gating_func": SIGMOID}
    if "moe" not in kinds:
        experts = dict.fromkeys(name for name in _NEMOTRON if name.startswith("expert_"))
    return {
        **experts,
        "block_count": len(kinds),
        "attention.head_count_kv": [heads * (kind == "attention") for kind in kinds],
        "feed_forward_length": [config[sizes[kind]] if kind in sizes else 0 for kind in kinds],
        "attention.layer_norm_epsilon": config["layer_norm_epsilon"],
        "attention.layer_norm_rms_epsilon": config["layer_norm_epsilon"],
        "ssm.inner_size": config["mamba_num_heads"] * config["mamba_head_dim"],
    }


_LETTERS = {"full_attention": "attention", "linear_attention": "mamba"}


def _read_kimi_linear(own: Facts, config: Config, header: GgufHeader) -> Config:
    """Layers without heads of keys are those of Kimi Delta Attention."""
    heads = _per_layer(own, "attention.head_count_kv", config["num_hidden_layers"])
    return read_latent_sizes(own, config, header) | {
        "layer_types": [_MIXERS[not count] for count in heads],
        "linear_num_heads": config["num_attention_heads"],
        "moe_renormalize": own.get("expert_weights_norm", True),
    }


def _write_kimi_linear(config: Facts, shapes: Shapes) -> Config:
    length = config.get("max_position_embeddings") or config.get("model_max_length") or 1 << 20
    return write_latent_sizes(config, shapes) | {
        "context_length": length,
        "attention.head_count_kv": [int(kind == _MIXERS[0]) for kind in config["layer_types"]],
        "leading_dense_block_count": [*config["mlp_layer_types"], "sparse"].index("sparse"),
        "expert_gating_func": SIGMOID,
        "expert_weights_norm": bool(config.get("moe_renormalize", True)),
    }


_GRANITE_HYBRID: dict[str, Any] = {**GRANITE, **LOCAL_MOE, **_MAMBA}
ARCHITECTURES = {
    "falcon-h1": Architecture("falcon_h1", _MAMBA, read=_read_falcon_h1, write=_write_falcon_h1),
    "granitehybrid": Architecture(
        "granitemoehybrid",
        _GRANITE_HYBRID,
        read=_read_granite_hybrid,
        write=_write_granite_hybrid,
        is_rotated=True,
    ),
    "kimi-linear": Architecture(
        "kimi_linear",
        MLA | _KIMI,
        read=_read_kimi_linear,
        write=_write_kimi_linear,
    ),
    "nemotron_h": Architecture(
        "nemotron_h", _NEMOTRON, read=_read_nemotron_h, write=_write_nemotron_h
    ),
    "nemotron_h_moe": Architecture(
        "nemotron_h", _NEMOTRON, read=_read_nemotron_h, write=_write_nemotron_h
    ),
    "qwen35": Architecture(
        "qwen3_5_text", _DELTA, read=_read_delta, write=_write_qwen35, is_shifted=True
    ),
    "qwen35moe": Architecture(
        "qwen3_5_moe_text",
        _DELTA | MOE | _SHARED,
        read=_read_delta,
        write=_write_qwen35,
        is_shifted=True,
    ),
    "qwen3next": Architecture(
        "qwen3_next",
        _DELTA | MOE | _SHARED,
        {"norm_topk_prob": True},
        read=_read_delta,
        write=_write_delta,
        is_shifted=True,
    ),
}
