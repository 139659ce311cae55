"""Models whose norms subtract the mean (LayerNorm)."""

from llmchat.gguf_file.architectures.row import (
    WINDOW,
    Architecture,
    Config,
    Facts,
    Shapes,
    rotary_part,
    windows,
)
from llmchat.gguf_file.header import GgufHeader


def _read_stablelm(own: Facts, config: Config, header: GgufHeader) -> Config:
    has_norms = "blk.0.attn_q_norm.weight" in header.tensors
    return {"qk_layernorm": has_norms, **rotary_part(own, config, header)}


def _read_cohere(own: Facts, config: Config, header: GgufHeader) -> Config:
    return {"use_qk_norm": "blk.0.attn_q_norm.weight" in header.tensors}


def _write_olmo(config: Facts, shapes: Shapes) -> Config:
    return {"attention.layer_norm_epsilon": 1e-5}


_ORION = {"partial_rotary_factor": 1.0, "use_parallel_residual": False, "qk_layernorm": False}
ARCHITECTURES = {
    "cohere2": Architecture("cohere2", {"logit_scale": "logit_scale", **WINDOW}, read=windows),
    "command-r": Architecture(
        "cohere", {"logit_scale": "logit_scale"}, read=_read_cohere, has_norms_of_heads=True
    ),
    "nemotron": Architecture(
        "nemotron",
        {"attention.layer_norm_epsilon": "norm_eps"},
        read=rotary_part,
        is_shifted=True,
    ),
    "codeshell": Architecture(
        "starcoder2", {"attention.layer_norm_epsilon": "norm_epsilon"}, is_written=False
    ),
    "olmo": Architecture(
        "olmo", {"attention.clamp_kqv": "clip_qkv"}, write=_write_olmo, is_rotated=True
    ),
    "orion": Architecture("stablelm", fixed=_ORION, is_written=False),
    "stablelm": Architecture(
        "stablelm",
        {"use_parallel_residual": "use_parallel_residual"},
        read=_read_stablelm,
        has_norms_of_heads=True,
    ),
    "starcoder2": Architecture("starcoder2", {"attention.layer_norm_epsilon": "norm_epsilon"}),
}
