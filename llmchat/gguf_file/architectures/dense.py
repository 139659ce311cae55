"""Dense models with rotary positions and norms by the root mean square."""

from llmchat.gguf_file.architectures.row import (
    LOCAL_MOE,
    WINDOW,
    Architecture,
    Config,
    Facts,
    Shapes,
    every,
    pattern_of_windows,
    plain,
    rotary_part,
    windows,
)
from llmchat.gguf_file.header import GgufHeader

GRANITE = {
    "embedding_scale": "embedding_multiplier",
    "residual_scale": "residual_multiplier",
    "attention.scale": "attention_multiplier",
    "logit_scale": "logits_scaling",
}
_SOFTCAPS = {
    "attn_logit_softcapping": "attn_logit_softcapping",
    "final_logit_softcapping": "final_logit_softcapping",
}


def _read_llama(own: Facts, config: Config, header: GgufHeader) -> Config:
    if config.get("num_local_experts"):
        return {"model_type": "mixtral"}
    return {"num_local_experts": None}


def _read_gemma3(own: Facts, config: Config, header: GgufHeader) -> Config:
    """Every sixth layer sees everything; the others have a window, and turn by 10,000."""
    width, theta = config.get("head_dim", 256), config.pop("rope_theta")
    scale = {} if config["num_hidden_layers"] != 62 else {"query_pre_attn_scalar": 168}
    return {
        "rope_theta": theta,
        "rope_local_base_freq": plain(own.get("rope.freq_base_swa", 10000.0)),
        "query_pre_attn_scalar": width,
        "layer_types": every(config["num_hidden_layers"], 6),
        **scale,
    }


def _read_gemma2(own: Facts, config: Config, header: GgufHeader) -> Config:
    """The 27B model alone scales by the width of its residual stream."""
    hidden, heads = config["hidden_size"], config["num_attention_heads"]
    is_27b = config["num_hidden_layers"] == 46
    scalar = hidden // heads if is_27b else config.get("head_dim", 256)
    return {"query_pre_attn_scalar": scalar, "layer_types": every(config["num_hidden_layers"], 2)}


def _read_phi3(own: Facts, config: Config, header: GgufHeader) -> Config:
    window = config.get("sliding_window") or None
    trained = own.get("rope.scaling.original_context_length")
    lengths = {"original_max_position_embeddings": trained} if trained else {}
    return {"sliding_window": window, **lengths, **rotary_part(own, config, header)}


def _read_olmo2(own: Facts, config: Config, header: GgufHeader) -> Config:
    """Olmo 3 has windows, and stretches positions only in the layers without one."""
    if not config.get("sliding_window"):
        return {"sliding_window": None}
    theta = {"rope_theta": config["rope_theta"]}
    kinds = {
        "full_attention": (config.pop("rope_scaling", None) or {"rope_type": "default"}) | theta,
        "sliding_attention": {"rope_type": "default", **theta},
    }
    return {"model_type": "olmo3", "rope_parameters": kinds, **windows(own, config, header)}


def _write_phi3(config: Facts, shapes: Shapes) -> Config:
    """llama.cpp knows Phi-4 by its window of 0."""
    return {"attention.sliding_window": config.get("sliding_window") or 0}


ARCHITECTURES = {
    "exaone4": Architecture("exaone4", WINDOW, read=windows, write=pattern_of_windows),
    "gemma": Architecture("gemma", is_shifted=True),
    "gemma2": Architecture("gemma2", _SOFTCAPS | WINDOW, read=_read_gemma2, is_shifted=True),
    "gemma3": Architecture("gemma3_text", _SOFTCAPS | WINDOW, read=_read_gemma3, is_shifted=True),
    "glm4": Architecture("glm4", read=rotary_part),
    "ernie4_5": Architecture("ernie4_5"),
    "granite": Architecture("granite", GRANITE, is_rotated=True),
    "hunyuan-dense": Architecture("hunyuan_v1_dense"),
    "llama": Architecture(
        "llama", LOCAL_MOE, read=_read_llama, also=("mistral", "mixtral"), is_rotated=True
    ),
    "olmo2": Architecture(
        "olmo2", WINDOW, read=_read_olmo2, write=pattern_of_windows, also=("olmo3",)
    ),
    "phi3": Architecture("phi3", WINDOW, read=_read_phi3, write=_write_phi3),
    "qwen2": Architecture("qwen2"),
    "qwen3": Architecture("qwen3"),
    "seed_oss": Architecture("seed_oss"),
    "smollm3": Architecture("smollm3", is_rotated=True),
}
