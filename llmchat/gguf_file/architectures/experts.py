"""Mixtures of experts."""

from llmchat.gguf_file.architectures.dense import GRANITE
from llmchat.gguf_file.architectures.row import (
    LOCAL_MOE,
    MOE,
    SIGMOID,
    WINDOW,
    Architecture,
    Config,
    Facts,
    Shapes,
    every,
    plain,
    rotary_part,
    trunk,
)
from llmchat.gguf_file.header import GgufHeader

GROUPED_MOE = {
    "expert_count": "n_routed_experts",
    "expert_used_count": "num_experts_per_tok",
    "expert_feed_forward_length": "moe_intermediate_size",
    "expert_shared_count": "n_shared_experts",
    "expert_group_count": "n_group",
    "expert_group_used_count": "topk_group",
    "expert_weights_scale": "routed_scaling_factor",
    "expert_weights_norm": "norm_topk_prob",
    "leading_dense_block_count": "first_k_dense_replace",
}
_ERNIE_MOE = {
    "expert_count": "moe_num_experts",
    "expert_used_count": "moe_k",
    "expert_feed_forward_length": "moe_intermediate_size",
    "expert_shared_count": "moe_num_shared_experts",
    "leading_dense_block_count": "moe_layer_start_index",
    "interleave_moe_layer_step": "moe_layer_interval",
}
_LLAMA4 = {
    **LOCAL_MOE,
    "feed_forward_length": "intermediate_size_mlp",
    "expert_feed_forward_length": "intermediate_size",
    "interleave_moe_layer_step": "interleave_moe_layer_step",
}
_SHARED = {"expert_shared_feed_forward_length": "shared_expert_intermediate_size"}


def _read_gpt_oss(own: Facts, config: Config, header: GgufHeader) -> Config:
    scaling = config.get("rope_scaling")
    found = {"rope_scaling": scaling | {"truncate": False}} if scaling else {}
    return found | {"layer_types": every(config["num_hidden_layers"], 2)}


def _read_glm4_moe(own: Facts, config: Config, header: GgufHeader) -> Config:
    """Its last layers guess further tokens, which a chat leaves out."""
    return {
        "num_hidden_layers": trunk(own, config),
        "use_qk_norm": "blk.0.attn_q_norm.weight" in header.tensors,
        **rotary_part(own, config, header),
    }


def _read_ernie_moe(own: Facts, config: Config, header: GgufHeader) -> Config:
    return {"moe_layer_end_index": config["num_hidden_layers"] - 1}


def _write_gpt_oss(config: Facts, shapes: Shapes) -> Config:
    return {"expert_feed_forward_length": config["intermediate_size"]}


def _write_glm4_moe(config: Facts, shapes: Shapes) -> Config:
    return {"expert_gating_func": SIGMOID}


def _write_ernie_moe(config: Facts, shapes: Shapes) -> Config:
    shared = config.get("moe_num_shared_experts") or 0
    return {"expert_shared_feed_forward_length": shared * config["moe_intermediate_size"]}


def _read_llama4(own: Facts, config: Config, header: GgufHeader) -> Config | None:
    """What llama.cpp takes for granted: chunks of 8192 positions, in three of four layers, which
    are rotated; queries of the others grow with their position. Maverick has no norms of heads.
    """
    if own.get("attention.sliding_window") == 0 or not config.get("num_local_experts"):
        return None
    return {
        "attention_chunk_size": 8192,
        "no_rope_layer_interval": 4,
        "use_qk_norm": config["num_local_experts"] != _MAVERICK,
        "attn_temperature_tuning": True,
        "head_dim": config.get("head_dim") or 128,
    }


# Its number of experts.
_MAVERICK = 128


def _read_hunyuan_moe(own: Facts, config: Config, header: GgufHeader) -> Config | None:
    """The plan has one inner width for all MLPs."""
    widths = {
        plain(own.get(name, config.get("intermediate_size")))
        for name in ("expert_feed_forward_length", "expert_shared_feed_forward_length")
    }
    return {} if widths == {config.get("intermediate_size")} else None


def _write_hunyuan_moe(config: Facts, shapes: Shapes) -> Config:
    inner, top = config["intermediate_size"], config["moe_topk"]
    return {
        "expert_used_count": plain(top),
        "expert_count": plain(config["num_experts"]),
        "expert_feed_forward_length": inner,
        "expert_shared_feed_forward_length": inner,
        "expert_shared_count": 1,
    }


ARCHITECTURES = {
    "ernie4_5-moe": Architecture(
        "ernie4_5_moe", _ERNIE_MOE, read=_read_ernie_moe, write=_write_ernie_moe
    ),
    "glm4moe": Architecture("glm4_moe", GROUPED_MOE, read=_read_glm4_moe, write=_write_glm4_moe),
    "gpt-oss": Architecture(
        "gpt_oss", LOCAL_MOE | WINDOW, read=_read_gpt_oss, write=_write_gpt_oss
    ),
    "granitemoe": Architecture("granitemoe", GRANITE | LOCAL_MOE, is_rotated=True),
    "hunyuan-moe": Architecture(
        "hunyuan_v1_moe",
        {"expert_count": "num_experts", "expert_used_count": "moe_topk"},
        read=_read_hunyuan_moe,
        write=_write_hunyuan_moe,
    ),
    "llama4": Architecture("llama4_text", _LLAMA4, read=_read_llama4),
    "olmoe": Architecture("olmoe", MOE),
    "qwen2moe": Architecture("qwen2_moe", MOE | _SHARED, {"norm_topk_prob": False}),
    "qwen3moe": Architecture("qwen3_moe", MOE, {"norm_topk_prob": True}),
    "qwen3vlmoe": Architecture("qwen3_moe", MOE, {"norm_topk_prob": True}, is_written=False),
}
