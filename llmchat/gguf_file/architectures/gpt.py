"""The families of 2023 and before: GPT-2, GPT-NeoX, Falcon, BLOOM, MPT, Phi, ChatGLM."""

from llmchat.gguf_file.architectures.row import (
    Architecture,
    Config,
    Facts,
    Shapes,
    plain,
    rotary_part,
)
from llmchat.gguf_file.header import GgufHeader

_GPT2 = {
    "block_count": "n_layer",
    "context_length": "n_positions",
    "embedding_length": "n_embd",
    "feed_forward_length": "n_inner",
    "attention.head_count": "n_head",
    "attention.layer_norm_epsilon": "layer_norm_epsilon",
}
_BLOOM = {
    "block_count": "n_layer",
    "context_length": "seq_length",
    "attention.head_count": "n_head",
    "attention.layer_norm_epsilon": "layer_norm_epsilon",
}
_MPT = {
    "block_count": "n_layers",
    "context_length": "max_seq_len",
    "embedding_length": "d_model",
    "attention.head_count": "n_heads",
    "attention.layer_norm_epsilon": "layer_norm_epsilon",
}
_FALCON = {
    "feed_forward_length": "ffn_hidden_size",
    "attention.head_count_kv": "num_kv_heads",
    "attention.layer_norm_epsilon": "layer_norm_epsilon",
}
# ChatGLM2 to GLM-4, whose config.json has words of its own.
_CHATGLM = {
    "num_hidden_layers": "num_layers",
    "max_position_embeddings": "seq_length",
    "intermediate_size": "ffn_hidden_size",
    "num_key_value_heads": "multi_query_group_num",
    "rms_norm_eps": "layernorm_epsilon",
    "head_dim": "kv_channels",
    "vocab_size": "padded_vocab_size",
}
# The slopes of ALiBi begin at 2 ** -8 of this.
_ALIBI = 8.0


def _read_bigcode(own: Facts, config: Config, header: GgufHeader) -> Config:
    heads = own.get("attention.head_count")
    return {"multi_query": config.pop("num_key_value_heads", heads) != heads}


def _write_inner(config: Facts, shapes: Shapes) -> Config:
    return {"feed_forward_length": shapes["blk.0.ffn_up.weight"][0]}


def _write_bigcode(config: Facts, shapes: Shapes) -> Config:
    heads = 1 if config.get("multi_query") else config["n_head"]
    return _write_inner(config, shapes) | {"attention.head_count_kv": heads}


def _write_bloom(config: Facts, shapes: Shapes) -> Config:
    """Its positions have no end."""
    length = config.get("seq_length") or 2048
    heads = {"attention.head_count_kv": config["n_head"], "context_length": length}
    return _write_inner(config, shapes) | heads


def _read_mpt(own: Facts, config: Config, header: GgufHeader) -> Config | None:
    """Files without ALiBi have learned positions (SEA-LION), which no plan has."""
    if own.get("attention.max_alibi_bias") != _ALIBI:
        return None
    return {"attn_config": {"clip_qkv": plain(own.get("attention.clamp_kqv")) or None}}


def _write_mpt(config: Facts, shapes: Shapes) -> Config:
    clip = (config.get("attn_config") or {}).get("clip_qkv")
    given = {"attention.clamp_kqv": float(clip)} if clip else {}
    return _write_inner(config, shapes) | {"attention.max_alibi_bias": _ALIBI, **given}


def _read_falcon(own: Facts, config: Config, header: GgufHeader) -> Config:
    """7B has one head of keys and one norm; 40B, 180B and 11B have groups of heads."""
    norms = 2 if "blk.0.attn_norm_2.weight" in header.tensors else 1
    is_new = norms == 2 or config.get("num_kv_heads") != 1
    return {
        "new_decoder_architecture": is_new,
        "multi_query": True,
        "parallel_attn": True,
        "alibi": False,
        **({"num_ln_in_parallel_attn": norms} if is_new else {}),
    }


def _write_falcon(config: Facts, shapes: Shapes) -> Config:
    heads = config["num_attention_heads"]
    if not config.get("new_decoder_architecture"):
        heads = 1 if config.get("multi_query") else heads
    else:
        heads = config.get("num_kv_heads") or heads
    return _write_inner(config, shapes) | {
        "attention.head_count_kv": heads,
        "context_length": config.get("max_position_embeddings") or 2048,
    }


def _read_neox(own: Facts, config: Config, header: GgufHeader) -> Config:
    return {"rotary_pct": rotary_part(own, config, header).get("partial_rotary_factor", 1.0)}


def _read_phi(own: Facts, config: Config, header: GgufHeader) -> Config:
    return {"qk_layernorm": False, **rotary_part(own, config, header)}


def _read_chatglm(own: Facts, config: Config, header: GgufHeader) -> Config:
    """Files of checkpoints in transformers' form (glm) have queries, keys and values one by one."""
    if "blk.0.attn_qkv.weight" not in header.tensors:
        width = config["hidden_size"] // config["num_attention_heads"]
        return {"model_type": "glm", "head_dim": width, **rotary_part(own, config, header)}
    config["head_dim"] = config["hidden_size"] // config["num_attention_heads"]
    theta = config.pop("rope_theta")
    renamed = {ours: config.pop(name) for name, ours in _CHATGLM.items() if name in config}
    return {"multi_query_attention": True, "rope_ratio": theta / 10000.0, **renamed}


def _write_chatglm(config: Facts, shapes: Shapes) -> Config:
    """A config of a model in the form of 2023 has the keys of _CHATGLM."""
    given = {name: config[ours] for name, ours in _CHATGLM.items() if ours in config}
    config = {**config, **given}
    width = config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]
    part = (config.get("rope_parameters") or {}).get("partial_rotary_factor") or 0.5
    heads = config.get("num_key_value_heads") or config["num_attention_heads"]
    return {
        "block_count": config["num_hidden_layers"],
        "context_length": config.get("max_position_embeddings") or config["hidden_size"],
        "feed_forward_length": config["intermediate_size"],
        "attention.head_count_kv": heads,
        "attention.layer_norm_rms_epsilon": config["rms_norm_eps"],
        "rope.dimension_count": int(width * part),
        **({"rope.freq_base": 10000.0 * config["rope_ratio"]} if "rope_ratio" in config else {}),
    }


ARCHITECTURES = {
    "bloom": Architecture("bloom", _BLOOM, write=_write_bloom, is_rotary=False),
    "chatglm": Architecture("chatglm", read=_read_chatglm, write=_write_chatglm, also=("glm",)),
    "falcon": Architecture("falcon", _FALCON, read=_read_falcon, write=_write_falcon),
    "gpt2": Architecture("gpt2", _GPT2, write=_write_inner, is_rotary=False),
    "gptneox": Architecture(
        "gpt_neox",
        {
            "use_parallel_residual": "use_parallel_residual",
            "attention.head_count_kv": "num_attention_heads",
        },
        read=_read_neox,
    ),
    "mpt": Architecture("mpt", _MPT, read=_read_mpt, write=_write_mpt, is_rotary=False),
    "phi2": Architecture("phi", read=_read_phi),
    "starcoder": Architecture(
        "gpt_bigcode", _GPT2, read=_read_bigcode, write=_write_bigcode, is_rotary=False
    ),
}
