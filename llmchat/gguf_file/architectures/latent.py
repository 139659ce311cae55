"""Multi-head latent attention: DeepSeek, and what has its words."""

from llmchat.gguf_file.architectures.experts import GROUPED_MOE
from llmchat.gguf_file.architectures.row import (
    SIGMOID,
    Architecture,
    Config,
    Facts,
    Shapes,
    trunk,
)
from llmchat.gguf_file.header import GgufHeader

MLA = {
    "attention.q_lora_rank": "q_lora_rank",
    "attention.kv_lora_rank": "kv_lora_rank",
    "rope.dimension_count": "qk_rope_head_dim",
}
_SOFTMAX = 1
# GLM-4.7-Flash: its first files do not tell how experts are scored. Only models whose scores are
# sigmoids correct them.
_GLM_LAYERS, _GLM_TOKENS = 47, 154880


def read_latent_sizes(own: Facts, config: Config, header: GgufHeader) -> Config:
    """The sizes of a head. Old files count them as of usual attention: the whole head, and values;
    others have those of the cache there, and one head.
    """
    config.pop("head_dim", None)
    whole = own.get("attention.key_length_mla", own.get("attention.key_length", 0))
    values = own.get("attention.value_length_mla", own.get("attention.value_length", 0))
    return {
        "qk_nope_head_dim": int(whole) - int(own.get("rope.dimension_count", 0)),
        "v_head_dim": int(values),
        "num_key_value_heads": config["num_attention_heads"],
        "q_lora_rank": config.get("q_lora_rank"),
    }


def write_latent_sizes(config: Facts, shapes: Shapes) -> Config:
    """As of attention with one head of latent numbers, which llama.cpp computes with."""
    latent, turned = config["kv_lora_rank"], config["qk_rope_head_dim"]
    return {
        "attention.head_count_kv": 1,
        "attention.key_length": latent + turned,
        "attention.value_length": latent,
        "attention.key_length_mla": config["qk_nope_head_dim"] + turned,
        "attention.value_length_mla": config["v_head_dim"],
        "rope.dimension_count": turned,
    }


def _read_deepseek(own: Facts, config: Config, header: GgufHeader) -> Config | None:
    """V2 scores experts by a softmax, V3 by sigmoids. Some later models scale scores by position,
    which no plan does.
    """
    if own.get("attention.temperature_scale"):
        return None
    layers, is_v3 = trunk(own, config), _scores_by_sigmoid(own, config, header)
    found = read_latent_sizes(own, config, header) | {
        "model_type": "deepseek_v3" if is_v3 else "deepseek_v2",
        "num_hidden_layers": layers,
        "norm_topk_prob": bool(own.get("expert_weights_norm", False)),
        "routed_scaling_factor": config.get("routed_scaling_factor", 1.0),
        "n_group": config.get("n_group") or 1,
        "topk_group": config.get("topk_group") or 1,
        "first_k_dense_replace": _dense_layers(header, layers),
    }
    if not is_v3 and found["n_group"] > 1:
        found["topk_method"] = "group_limited_greedy"
    if "rope_scaling" in config:
        found["rope_scaling"] = _magnitudes(own, config["rope_scaling"])
    return found


def _dense_layers(header: GgufHeader, layers: int) -> int:
    """How many of the first layers have no experts."""
    routers = (f"blk.{index}.ffn_gate_inp.weight" for index in range(layers))
    return next((at for at, name in enumerate(routers) if name in header.tensors), layers)


def _scores_by_sigmoid(own: Facts, config: Config, header: GgufHeader) -> bool:
    if scores := own.get("expert_gating_func"):
        return bool(scores == SIGMOID)
    is_glm = (config["num_hidden_layers"], config.get("vocab_size")) == (_GLM_LAYERS, _GLM_TOKENS)
    return is_glm or any(name.endswith(".exp_probs_b.bias") for name in header.tensors)


def _magnitudes(own: Facts, scaling: Config) -> Config:
    """Files have one of the two magnitudes of YaRN; published models have one number for both."""
    factor = own.get("rope.scaling.yarn_log_multiplier")
    if not factor:
        return scaling
    scaling = {name: value for name, value in scaling.items() if name != "attention_factor"}
    magnitude = float(f"{10 * factor:.6g}")
    return scaling | {"mscale": magnitude, "mscale_all_dim": magnitude}


def _write_deepseek(config: Facts, shapes: Shapes) -> Config:
    is_v2, kinds = config["model_type"] == "deepseek_v2", config.get("mlp_layer_types")
    facts = write_latent_sizes(config, shapes) | {
        "expert_gating_func": _SOFTMAX if is_v2 else SIGMOID,
        "expert_weights_norm": not is_v2 and bool(config.get("norm_topk_prob", True)),
    }
    if kinds:
        facts["leading_dense_block_count"] = [*kinds, "sparse"].index("sparse")
    if is_v2 and config.get("topk_method") != "group_limited_greedy":
        facts |= {"expert_group_count": 1, "expert_group_used_count": 1}
    if magnitude := _scaling(config).get("mscale_all_dim"):
        facts["rope.scaling.yarn_log_multiplier"] = 0.1 * magnitude
    return facts


def _scaling(config: Facts) -> Facts:
    found: Facts = config.get("rope_scaling") or config.get("rope_parameters") or {}
    return found


ARCHITECTURES = {
    "deepseek2": Architecture(
        "deepseek_v3",
        MLA | GROUPED_MOE,
        read=_read_deepseek,
        write=_write_deepseek,
        also=("deepseek_v2", "glm4_moe_lite"),
    ),
}
