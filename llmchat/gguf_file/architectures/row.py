"""What a row of the table of architectures is made of."""

import struct
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from llmchat.gguf_file.header import GgufHeader

Facts = Mapping[str, Any]
Config = dict[str, Any]
# Facts of the architecture, without its name; the config that was made of them; the header. None:
# a variant that has no plan.
Read = Callable[[Facts, Config, GgufHeader], Config | None]
# By the names of llama.cpp.
Shapes = Mapping[str, tuple[int, ...]]
Write = Callable[[Mapping[str, Any], Shapes], dict[str, Any]]

# llama.cpp's keys → those of a config.json.
COMMON = {
    "block_count": "num_hidden_layers",
    "context_length": "max_position_embeddings",
    "embedding_length": "hidden_size",
    "feed_forward_length": "intermediate_size",
    "attention.head_count": "num_attention_heads",
    "attention.head_count_kv": "num_key_value_heads",
    "attention.key_length": "head_dim",
    "attention.layer_norm_rms_epsilon": "rms_norm_eps",
    "attention.layer_norm_epsilon": "layer_norm_eps",
}
WINDOW = {"attention.sliding_window": "sliding_window"}
MOE = {
    "expert_count": "num_experts",
    "expert_used_count": "num_experts_per_tok",
    "expert_feed_forward_length": "moe_intermediate_size",
}
LOCAL_MOE = {"expert_count": "num_local_experts", "expert_used_count": "num_experts_per_tok"}
# llama.cpp's enum llama_expert_gating_func_type.
SIGMOID = 2


class Architecture(NamedTuple):
    """What is particular to an architecture of llama.cpp.

    model_type: that of its config.json. keys: besides COMMON. fixed: what every config has.
    read, write: what is computed, in a config and in the facts of a file. also: further model types
    that are written so. is_rotated: the converter makes rotary pairs adjacent. is_shifted: it adds
    1 to the norms. has_norms_of_heads: every head has norms of its own. is_rotary: positions rotate
    the heads. is_written: files of the model type are written so; else they are only read. numbers:
    the end of a tensor's name → the key of its numbers, one a layer, which are no tensors.
    """

    model_type: str
    keys: Mapping[str, str] = {}
    fixed: Mapping[str, Any] = {}
    read: Read | None = None
    write: Write | None = None
    also: tuple[str, ...] = ()
    is_rotated: bool = False
    is_shifted: bool = False
    has_norms_of_heads: bool = False
    is_rotary: bool = True
    is_written: bool = True
    numbers: Mapping[str, str] = {}

    def key(self, theirs: str) -> str:
        """The key in a config.json of a key of llama.cpp."""
        return {**COMMON, **self.keys}[theirs]


def plain(value: Any) -> Any:
    """A number of 32 bits as its shortest decimal; a list of equal numbers as one."""
    if isinstance(value, list) and value and all(one == value[0] for one in value):
        return plain(value[0])
    if not isinstance(value, float):
        return value
    short = float(f"{value:.7g}")
    return short if struct.pack("<f", short) == struct.pack("<f", value) else value


def rotary_part(own: Facts, config: dict[str, Any], header: GgufHeader) -> dict[str, Any]:
    """Which part of a head is turned."""
    turned = own.get("rope.dimension_count")
    width = (
        own.get("attention.key_length") or config["hidden_size"] // config["num_attention_heads"]
    )
    return {"partial_rotary_factor": turned / width} if turned else {}


def trunk(own: Facts, config: Config) -> int:
    """How many layers answer: the last ones of some models guess further tokens."""
    return int(config["num_hidden_layers"]) - int(own.get("nextn_predict_layers", 0))


def every(layers: int, nth: int) -> list[str]:
    kinds = ("full_attention", "sliding_attention")
    return [kinds[(index + 1) % nth != 0] for index in range(layers)]


def windows(own: Facts, config: dict[str, Any], header: GgufHeader) -> dict[str, Any]:
    """Kinds of layers by the file's pattern: a number, or one flag a layer."""
    if not config.get("sliding_window"):
        return {"sliding_window": None}
    pattern = own.get("attention.sliding_window_pattern", 4)
    layers = config["num_hidden_layers"]
    if isinstance(pattern, list):
        kinds = ["sliding_attention" if slides else "full_attention" for slides in pattern]
        return {"layer_types": kinds[:layers]}
    return {"layer_types": every(layers, int(pattern) or 1)}


def pattern_of_windows(config: Mapping[str, Any], shapes: Shapes) -> dict[str, Any]:
    kinds = config.get("layer_types")
    if not config.get("sliding_window") or not kinds:
        return {}
    return {"attention.sliding_window_pattern": [kind == "sliding_attention" for kind in kinds]}
