"""Models with layers that keep a state of fixed size: convolutions, recurrences."""

from llmchat.gguf_file.architectures.row import (
    MOE,
    SIGMOID,
    Architecture,
    Config,
    Facts,
    Shapes,
)
from llmchat.gguf_file.header import GgufHeader

_CONVOLUTIONS = {
    "attention.layer_norm_rms_epsilon": "norm_eps",
    "shortconv.l_cache": "conv_L_cache",
    "leading_dense_block_count": "num_dense_layers",
}


def _read_lfm2(own: Facts, config: Config, header: GgufHeader) -> Config:
    """Layers without heads for keys are convolutions."""
    heads = own.get("attention.head_count_kv")
    heads = heads if isinstance(heads, list) else [heads] * config["num_hidden_layers"]
    kinds = ["full_attention" if count else "conv" for count in heads]
    return {"num_key_value_heads": max(heads, default=0), "layer_types": kinds}


def _write_lfm2(config: Facts, shapes: Shapes) -> Config:
    """Layers of convolutions have no heads; the inner width is that of the first layer."""
    heads = config["num_key_value_heads"]
    of_layers = [heads * (kind == "full_attention") for kind in config["layer_types"]]
    facts: Config = {"attention.head_count_kv": of_layers}
    if "blk.0.ffn_gate.weight" in shapes:
        facts["feed_forward_length"] = shapes["blk.0.ffn_gate.weight"][0]
    return facts


def _write_lfm2_moe(config: Facts, shapes: Shapes) -> Config:
    return _write_lfm2(config, shapes) | {"expert_gating_func": SIGMOID}


ARCHITECTURES = {
    "lfm2": Architecture(
        "lfm2",
        _CONVOLUTIONS,
        {"block_auto_adjust_ff_dim": False},
        read=_read_lfm2,
        write=_write_lfm2,
    ),
    "lfm2moe": Architecture(
        "lfm2_moe",
        _CONVOLUTIONS | MOE,
        {"norm_topk_prob": True},
        read=_read_lfm2,
        write=_write_lfm2_moe,
    ),
}
