"""The memory that a model needs, from tensor shapes and config.json, and the memory that is free.

Arithmetic and /proc, without torch, so that a download can be judged before it starts.
"""

from collections.abc import Mapping
from contextlib import suppress
from math import prod
from pathlib import Path
from typing import Any

from llmchat.settings.types import KvKind

Shapes = Mapping[str, tuple[int, ...]]

# Bytes a weight in a linear layer. int4: a mixture of 4, 5 and 6 bits with their scales; NF4 has 4
# bits, and one 32-bit scale for 64 weights.
BYTES = {"int8": 1.0, "int4": 0.65, "nf4": 0.5625, "bf16": 2.0, "fp32": 4.0}
# Of an embedding or an output head in int4, which the compiled step reads in 6 bits.
_INT4_TABLE = 0.83
# Work space: Python, torch, one dequantised layer, the KV cache of a short chat.
OVERHEAD = 600_000_000
# No weight keeps the numbers of its file.
NONE_STORED: Mapping[str, int] = {}
# A scale of a KV cache of 8 bits is for so many numbers of a head, and takes two bytes.
KV_GROUP = 32
# Names of the same number in configs, the most common one first.
_LAYERS = ("num_hidden_layers", "n_layer", "n_layers", "num_layers")
_HEADS = ("num_attention_heads", "n_head", "n_heads", "num_heads")
_WIDTH = ("hidden_size", "n_embd", "d_model")
_CONTEXT = (
    "max_position_embeddings",
    "n_positions",
    "max_seq_len",
    "max_sequence_length",
    "seq_length",
    "context_length",
)
_EXPERTS = ("num_local_experts", "num_experts", "n_routed_experts", "moe_num_experts", "ffn_config")
# Part of the names of expert tensors, but not of shared experts, which are ordinary layers.
_EXPERT = ".experts."
# Model types whose experts are quantised: a plan of engines/transformers/families describes them.
QUANTISED_EXPERTS = frozenset({
    "deepseek_v2", "deepseek_v3", "ernie4_5_moe", "gemma4_text", "gemma4_unified_text", "glm4_moe",
    "glm4_moe_lite", "gpt_oss", "granitemoe", "granitemoehybrid", "granitemoeshared",
    "hunyuan_v1_moe", "kimi_linear", "lfm2_moe", "llama4", "llama4_text", "mixtral", "nemotron_h",
    "olmoe", "qwen2_moe", "qwen3_5_moe_text", "qwen3_moe", "qwen3_next",
})  # fmt: skip
_SHORTEST_TRAINED = 2048
# Model types whose plan keeps the latent numbers of multi-head latent attention.
_LATENT = ("deepseek_v2", "deepseek_v3", "glm4_moe_lite", "kimi_linear")
# Recurrent families keep a state of fixed size: floats a layer, in multiples of the width.
_STATES = {"rwkv": 5, "rwkv5": 66, "rwkv6": 66, "rwkv7": 66, "mamba": 40, "mamba2": 260}


def needed(
    shapes: Shapes,
    kind: str,
    config: Mapping[str, Any] | None = None,
    stored: Mapping[str, int] = NONE_STORED,
) -> int:
    """Bytes of the loaded model, including work space."""
    return weights(shapes, kind, config, stored) + OVERHEAD


def weights(
    shapes: Shapes,
    kind: str,
    config: Mapping[str, Any] | None = None,
    stored: Mapping[str, int] = NONE_STORED,
) -> int:
    """Bytes of the weights. stored: name → bytes of those that keep the numbers of their file.

    Embeddings, norms and the output head stay 16 bit in the quantised kinds (in int4: 6 bit), and
    experts of a model type without a plan. If those are stored one by one, transformers loads the
    whole model before it quantises: its 16-bit tensors are in memory together with the quantised
    ones.
    """
    full = 4.0 if kind == "fp32" else 2.0
    ours = _quantises_experts(config)
    apart = not ours and any(_EXPERT in name and len(shape) == 2 for name, shape in shapes.items())
    total = 0.0
    for name, shape in shapes.items():
        if name in stored and kind in ("int8", "int4"):
            total += stored[name]
            continue
        is_expert = _EXPERT in name and len(shape) > 1
        quantised = kind in ("int8", "int4", "nf4") and (
            ours
            if is_expert
            else len(shape) == 2 and not any(part in name for part in ("embed", "lm_head"))
        )
        of_table = _INT4_TABLE if kind == "int4" and not is_expert and len(shape) == 2 else full
        total += prod(shape) * (
            (BYTES[kind] if quantised else of_table) + (full if quantised and apart else 0)
        )
    return int(total)


def weights_of_count(parameters: float, kind: str, config: Mapping[str, Any] | None = None) -> int:
    """The same from the number of parameters alone: a slight overestimate.

    It counts all of them as weights of linear layers, or of experts.
    """
    experts = any(_text_part(config or {}).get(name) for name in _EXPERTS)
    experts = experts and not _quantises_experts(config)
    return int(parameters * (max(BYTES[kind], 2.0) if experts else BYTES[kind]))


def parameters(shapes: Shapes) -> int:
    return sum(prod(shape) for shape in shapes.values())


def row_bytes(numbers: int, kind: KvKind = "full") -> int:
    """Bytes of a key or a value of a head in a KV cache: 16 bits a number, or 8 and the scales."""
    return numbers + 2 * -(-numbers // KV_GROUP) if kind == "int8" else 2 * numbers


def kv_bytes(config: Mapping[str, Any], tokens: int, kind: KvKind = "full") -> int:
    """Bytes of a KV cache for `tokens` positions; 0 if the config does not say.

    2 (K and V) x layers x key-value heads x bytes of a head (row_bytes) x tokens. Heads that share
    keys (GQA, MQA) count once. A decoder that attends to an encoder (T5) has those of both. Layers
    with a sliding window keep all of theirs, so that a chat can be cut. Recurrent models
    have a state of fixed size instead, and hybrids for some of their layers.
    """
    config = _text_part(config)
    heads, width = _first(config, _HEADS), _first(config, _WIDTH)
    layers = _first(config, _LAYERS) or len(_kinds(config))
    if str(config.get("model_type")) in _STATES:
        return 4 * layers * width * _STATES[str(config["model_type"])]
    if config.get("is_encoder_decoder"):
        layers = int(config.get("num_decoder_layers") or config.get("decoder_layers") or layers) * 2
        heads = int(config.get("decoder_attention_heads") or heads)
    if not (layers and heads and (width or config.get("head_dim"))):
        return 0
    layers = _attending(config, layers)
    if str(config.get("model_type")) in _LATENT:
        return layers * sum(row_bytes(one, kind) for one in _latent_widths(config)) * tokens
    names = ("head_dim", "d_kv", "kv_channels")
    own = int(next((config[name] for name in names if config.get(name)), width // heads))
    both = sum(row_bytes(one, kind) for one in _head_widths(config) or (own, own))
    return layers * _kv_heads(config, heads) * both * tokens


def _attending(config: Mapping[str, Any], layers: int) -> int:
    """The layers that keep keys and values of their own."""
    if kinds := _kinds(config):
        layers = sum("attention" in kind and kind != "linear_attention" for kind in kinds)
    elif config.get("full_attention_interval"):
        layers //= int(config["full_attention_interval"])
    return layers - int(config.get("num_kv_shared_layers") or 0)


def _kinds(config: Mapping[str, Any]) -> list[str]:
    """What each layer is, where the config lists it; Nemotron-H has a pattern of letters."""
    for name in ("layer_types", "layers_block_type"):
        if isinstance(config.get(name), list):
            return [str(kind) for kind in config[name]]
    linear = config.get("linear_attn_config")
    if isinstance(linear, dict) and isinstance(linear.get("full_attn_layers"), list):
        return ["attention" for _ in linear["full_attn_layers"]]
    pattern = config.get("hybrid_override_pattern")
    letters = pattern if isinstance(pattern, str) else ""
    return ["attention" if letter == "*" else letter for letter in letters]


def _head_widths(config: Mapping[str, Any]) -> tuple[int, ...]:
    """Numbers of a key and of a value, where they differ (latent attention in transformers'
    modules); () for any other.
    """
    parts = [config.get(f"{name}_head_dim") for name in ("qk_nope", "qk_rope", "v")]
    known = [part for part in parts if isinstance(part, int) and part]
    return (known[0] + known[1], known[2]) if len(known) == len(parts) else ()


def _latent_widths(config: Mapping[str, Any]) -> tuple[int, int]:
    """Of a position whose keys and values are latent: both are kept, in their own order."""
    latent = int(config.get("kv_lora_rank") or 512)
    return latent + int(config.get("qk_rope_head_dim") or 64), latent


def longest_context(config: Mapping[str, Any], room: int, kind: KvKind = "full") -> int:
    """The tokens whose KV cache fits into `room` bytes, a multiple of 256; 0 if unknown."""
    step = kv_bytes(config, 256, kind)
    return max(0, room) // step * 256 if step else 0


def own_context(config: Mapping[str, Any]) -> int:
    """The context window a model was trained for, with rotary scaling; 0 if unknown."""
    config = _text_part(config)
    return max(_first(config, _CONTEXT), _scaled_context(config))


def _scaled_context(config: Mapping[str, Any]) -> int:
    """The window that results from position scaling; 0 without scaling.

    yarn stretches `original_max_position_embeddings`, and dynamic NTK `max_position_embeddings`, as
    in transformers. For linear scaling no file says whether its number includes the factor
    (LLaMA-2-7B-32K, Gemma 3 and DeepSeek-Coder: yes; Vicuna 16k: no). No model is trained on fewer
    than 2,048 tokens, so a number that would imply that does not include it.
    """
    found = config.get("rope_parameters") or config.get("rope_scaling")
    scaling: Mapping[str, Any] = found if isinstance(found, dict) else {}
    kind, factor = scaling.get("rope_type", scaling.get("type")), scaling.get("factor")
    most = _first(config, ("max_position_embeddings",))
    if not isinstance(factor, int | float) or not 1 < factor < 1000:
        return 0
    if kind == "linear":
        stated = _first(config, ("max_sequence_length",))
        return stated or (0 if most / factor >= _SHORTEST_TRAINED else int(most * factor))
    original = _first(scaling, ("original_max_position_embeddings",)) if kind == "yarn" else most
    return int((original or most) * factor) if kind in ("yarn", "dynamic") else 0


def heads(config: Mapping[str, Any]) -> tuple[int, int]:
    """Attention heads, and key-value heads; (0, 0) if unknown."""
    config = _text_part(config)
    own = _first(config, _HEADS)
    return own, _kv_heads(config, own) if own else 0


def layers(config: Mapping[str, Any]) -> int:
    """Number of layers; 0 if unknown."""
    return _first(_text_part(config), _LAYERS)


def available_ram() -> int:
    """Bytes of free memory: the machine's, or what this control group's limit leaves if less."""
    free = _memory("MemAvailable", "available")
    return min([free, *group_rooms(Path("/sys/fs/cgroup"), Path("/proc/self/cgroup"))])


def installed_ram() -> int:
    """Bytes of memory for all programs: the machine's, or this control group's limit if less."""
    all_of_it = _memory("MemTotal", "total")
    return min([all_of_it, *group_limits(Path("/sys/fs/cgroup"), Path("/proc/self/cgroup"))])


def _memory(field: str, name: str, meminfo: Path = Path("/proc/meminfo")) -> int:
    """Bytes: a field of Linux's table; elsewhere what psutil has by that name."""
    if not meminfo.exists():
        import psutil

        return int(getattr(psutil.virtual_memory(), name))
    fields = dict(line.split(":", 1) for line in meminfo.read_text("ascii").splitlines())
    return int(fields[field].split()[0]) * 1024


def group_limits(root: Path, membership: Path) -> list[int]:
    """The memory limits of this process's control groups, versions 2 and 1."""
    found = []
    for group in _groups(membership):
        for file in (
            root / group / "memory.max",
            root / "memory" / group / "memory.limit_in_bytes",
        ):
            with suppress(OSError, ValueError):
                found.append(int(file.read_text()))
    return found


def group_rooms(root: Path, membership: Path) -> list[int]:
    """What the memory limits of this process's control groups leave, versions 2 and 1.

    The page cache counts as used there, but the kernel can drop it, so it counts as free here.
    """
    groups = _groups(membership)
    rooms = [
        _room(root / group, "memory.max", "memory.current", "inactive_file") for group in groups
    ]
    rooms += [
        _room(
            root / "memory" / group,
            "memory.limit_in_bytes",
            "memory.usage_in_bytes",
            "total_inactive_file",
        )
        for group in groups
    ]
    return [room for room in rooms if room is not None]


def _groups(membership: Path) -> set[Path]:
    """The control groups of this process, and their parents."""
    try:
        paths = {line.split(":", 2)[2].strip("/") for line in membership.read_text().splitlines()}
    except (OSError, IndexError):
        paths = set()
    return {parent for path in paths for parent in (Path(path), *Path(path).parents)} | {Path()}


def _room(folder: Path, limit: str, used: str, droppable: str) -> int | None:
    try:
        most, now = int((folder / limit).read_text()), int((folder / used).read_text())
        stat = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
        return max(0, most - now + int(stat.get(droppable, 0)))
    except (OSError, ValueError):
        # No such group, or no limit ("max").
        return None


def _kv_heads(config: Mapping[str, Any], heads: int) -> int:
    if config.get("multi_query") and not config.get("new_decoder_architecture"):
        return 1
    attention = config.get("attn_config")
    of_mpt = attention.get("kv_n_heads") if isinstance(attention, dict) else None
    if config.get("multi_query_attention"):
        return int(config.get("multi_query_group_num") or 1)
    return int(
        config.get("num_key_value_heads")
        or config.get("num_kv_heads")
        or config.get("n_head_kv")
        or of_mpt
        or heads
    )


def _quantises_experts(config: Mapping[str, Any] | None) -> bool:
    return str(_text_part(config or {}).get("model_type")) in QUANTISED_EXPERTS


def _text_part(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """The part of a multimodal config that describes the language model."""
    inner = config.get("text_config")
    return inner if isinstance(inner, dict) and not config.get("num_hidden_layers") else config


def _first(config: Mapping[str, Any], names: tuple[str, ...]) -> int:
    return int(next((config[name] for name in names if isinstance(config.get(name), int)), 0))
