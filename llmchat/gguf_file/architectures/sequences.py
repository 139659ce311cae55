"""Models that are no stack of layers behind a causal mask with positions: T5 and RWKV-7."""

from llmchat.gguf_file.architectures.row import Architecture, Config, Facts
from llmchat.gguf_file.header import GgufHeader

_T5 = {
    "block_count": "num_layers",
    "decoder_block_count": "num_decoder_layers",
    "context_length": "n_positions",
    "embedding_length": "d_model",
    "feed_forward_length": "d_ff",
    "attention.head_count": "num_heads",
    "attention.key_length": "d_kv",
    "attention.layer_norm_rms_epsilon": "layer_norm_epsilon",
    "attention.relative_buckets_count": "relative_attention_num_buckets",
    "decoder_start_token_id": "decoder_start_token_id",
}
_RWKV7 = {
    "feed_forward_length": "intermediate_size",
    "wkv.head_size": "head_dim",
    "attention.layer_norm_epsilon": "norm_eps",
    "attention.decay_lora_rank": "decay_low_rank_dim",
    "attention.iclr_lora_rank": "a_low_rank_dim",
    "attention.value_residual_mix_lora_rank": "v_low_rank_dim",
    "attention.gate_lora_rank": "gate_low_rank_dim",
}


def _read_t5(own: Facts, config: Config, header: GgufHeader) -> Config:
    """UMT5 has biases of distances in each layer. A gated MLP has GELU, one without has ReLU, as in
    the published models.
    """
    is_gated = "enc.blk.0.ffn_gate.weight" in header.tensors
    has_own = "enc.blk.1.attn_rel_b.weight" in header.tensors
    return {
        "model_type": "umt5" if has_own else "t5",
        "feed_forward_proj": "gated-gelu" if is_gated else "relu",
        "num_decoder_layers": config.get("num_decoder_layers") or config["num_layers"],
        "decoder_start_token_id": config.get("decoder_start_token_id", 0),
        "is_encoder_decoder": True,
    }


def _read_rwkv7(own: Facts, config: Config, header: GgufHeader) -> Config:
    """The ranks are those of the tensors: some files have them wrong."""
    ranks = {
        key: header.tensors[f"blk.1.time_mix_{letter}1.weight"].shape[0]
        for letter, key in _RANKS.items()
        if f"blk.1.time_mix_{letter}1.weight" in header.tensors
    }
    # A number that llama.cpp requires and does not use.
    config.pop("num_attention_heads", None)
    return {"hidden_act": "sqrelu", "norm_first": True, **ranks}


_RANKS = {
    "w": "decay_low_rank_dim",
    "a": "a_low_rank_dim",
    "v": "v_low_rank_dim",
    "g": "gate_low_rank_dim",
}
ARCHITECTURES = {
    "rwkv7": Architecture("rwkv7", _RWKV7, read=_read_rwkv7, is_written=False),
    "t5": Architecture("t5", _T5, read=_read_t5, is_written=False),
}
