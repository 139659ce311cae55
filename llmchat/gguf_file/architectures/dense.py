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

# Keys of the numbers of xIELU that are the same in all layers.
_XIELU = {"xielu.beta": 0.5, "xielu.eps": -1e-6}


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


def _read_apertus(own: Facts, config: Config, header: GgufHeader) -> Config | None:
    """beta and epsilon of xIELU are fixed in a plan."""
    for name, usual in _XIELU.items():
        values = header.facts.get(name, usual)
        listed = values if isinstance(values, list) else [values]
        if any(abs(float(value) / usual - 1) > 0.01 for value in listed):
            return None
    return {}


def _write_apertus(config: Facts, shapes: Shapes) -> Config:
    return {name: [value] * config["num_hidden_layers"] for name, value in _XIELU.items()}


def _read_mistral3(own: Facts, config: Config, header: GgufHeader) -> Config:
    """Ministral 3 has queries that grow with their positions, Mistral Small 3.1 has not."""
    growth = plain(own.get("attention.temperature_scale", 0.0))
    if not growth:
        return {"model_type": "mistral", "sliding_window": None}
    scale = plain(own.get("rope.scaling.yarn_log_multiplier", 0.0))
    more = {"mscale": scale, "mscale_all_dim": scale, "llama_4_scaling_beta": growth}
    return {"rope_scaling": config.get("rope_scaling", {}) | more}


def _write_mistral3(config: Facts, shapes: Shapes) -> Config:
    scaling = config.get("rope_parameters") or config.get("rope_scaling") or {}
    return {
        "rope.scaling.yarn_log_multiplier": float(scaling.get("mscale_all_dim") or 0.0),
        "attention.temperature_scale": float(scaling.get("llama_4_scaling_beta") or 0.0),
    }


def _read_minicpm(own: Facts, config: Config, header: GgufHeader) -> Config:
    """Old files leave out the scales, which are those of MiniCPM 1B and 2B."""
    hidden, layers = config["hidden_size"], config["num_hidden_layers"]
    usual = {
        "embedding_multiplier": 12.0,
        "residual_multiplier": 1.4 / layers**0.5,
        "logits_scaling": hidden / 256,
    }
    scale = (hidden // config["num_attention_heads"]) ** -0.5
    given = {name: config.get(name, value) for name, value in usual.items()}
    return {"attention_multiplier": scale, **given}


def _read_qwen(own: Facts, config: Config, header: GgufHeader) -> Config:
    """The file counts gate and up together."""
    return {"intermediate_size": config["intermediate_size"] // 2, "sliding_window": None}


def _read_baichuan(own: Facts, config: Config, header: GgufHeader) -> Config | None:
    """The 13B model has ALiBi instead of rotary embeddings, which only its depth says."""
    return None if config["num_hidden_layers"] == 40 else {}


def _write_phi3(config: Facts, shapes: Shapes) -> Config:
    """llama.cpp knows Phi-4 by its window of 0."""
    return {"attention.sliding_window": config.get("sliding_window") or 0}


ARCHITECTURES = {
    "apertus": Architecture(
        "apertus",
        read=_read_apertus,
        write=_write_apertus,
        numbers={".act_fn.alpha_p": "xielu.alpha_p", ".act_fn.alpha_n": "xielu.alpha_n"},
    ),
    "arcee": Architecture("arcee", is_rotated=True),
    "baichuan": Architecture("llama", read=_read_baichuan, is_rotated=True, is_written=False),
    "exaone": Architecture("llama", is_written=False),
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
    "internlm2": Architecture("llama", is_rotated=True, is_written=False),
    "minicpm": Architecture(
        "granite", GRANITE, read=_read_minicpm, is_rotated=True, is_written=False
    ),
    "mistral3": Architecture(
        "ministral3", read=_read_mistral3, write=_write_mistral3, is_rotated=True
    ),
    "olmo2": Architecture(
        "olmo2", WINDOW, read=_read_olmo2, write=pattern_of_windows, also=("olmo3",)
    ),
    "phi3": Architecture("phi3", WINDOW, read=_read_phi3, write=_write_phi3),
    "pangu-embedded": Architecture("llama", is_written=False),
    "qwen": Architecture("qwen2", read=_read_qwen, is_written=False),
    "qwen2": Architecture("qwen2"),
    "qwen2vl": Architecture("qwen2", is_written=False),
    "qwen3": Architecture("qwen3"),
    "qwen3vl": Architecture("qwen3", is_written=False),
    "seed_oss": Architecture("seed_oss"),
    "smollm3": Architecture("smollm3", is_rotated=True),
    "xverse": Architecture("llama", is_rotated=True, is_written=False),
}
