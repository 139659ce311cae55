"""Tiny checkpoints as GGUF files, written as llama.cpp's converters write them."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np

from llmchat.engines.checkpoint_files import read_json
from llmchat.engines.transformers.weights import FileTensors
from support.checkpoints import CHATML

KEYS = {
    "num_hidden_layers": "block_count",
    "max_position_embeddings": "context_length",
    "hidden_size": "embedding_length",
    "intermediate_size": "feed_forward_length",
    "num_attention_heads": "attention.head_count",
    "num_key_value_heads": "attention.head_count_kv",
    "head_dim": "attention.key_length",
    "num_local_experts": "expert_count",
    "num_experts_per_tok": "expert_used_count",
    "moe_intermediate_size": "expert_feed_forward_length",
    "sliding_window": "attention.sliding_window",
}
# Model type → architecture of llama.cpp.
ARCHITECTURES = {
    "llama": "llama", "qwen3": "qwen3", "qwen3_moe": "qwen3moe", "gemma3_text": "gemma3",
    "phi3": "phi3", "qwen2": "qwen2", "olmo2": "olmo2", "seed_oss": "seed_oss",
    "smollm3": "smollm3", "lfm2": "lfm2",
}  # fmt: skip
# Those whose rotary pairs are neighbours in a file, and halves of a head apart in a checkpoint.
ROTATED = ("baichuan", "internlm2", "llama", "minicpm", "smollm3", "xverse")
# Those whose converter joins queries, keys and values, or leaves them joined.
JOINED = ("codeshell", "qwen")
_EPSILONS = ("rms_norm_eps", "norm_eps", "layer_norm_eps", "norm_epsilon")
Quantise = Callable[[str, np.ndarray], gguf.GGMLQuantizationType | None]


def q8_0(name: str, array: np.ndarray) -> gguf.GGMLQuantizationType:
    """Matrices in Q8_0 where their rows are whole blocks, all else in F32."""
    kinds = gguf.GGMLQuantizationType
    whole = array.ndim > 1 and array.shape[-1] % 32 == 0
    return kinds.Q8_0 if whole and "gate_inp" not in name else kinds.F32


def f32(name: str, array: np.ndarray) -> gguf.GGMLQuantizationType:
    return gguf.GGMLQuantizationType.F32


def write_gguf(
    folder: Path, file: Path, kind_of: Quantise = q8_0, arch: str = "", **facts: Any
) -> Path:
    """Write a checkpoint as one file, without tensors of no kind.

    arch: of the file, if not that of the model type. facts: more keys, without the architecture's
    name.
    """
    config = read_json(folder / "config.json")
    arch = arch or ARCHITECTURES[config["model_type"]]
    if arch == "lfm2":
        # The file has the width that the config makes of its number.
        inner = FileTensors(folder).shapes["model.layers.0.feed_forward.w1.weight"][0]
        config["intermediate_size"] = inner
    writer = gguf.GGUFWriter(str(file), arch)
    for ours, theirs in KEYS.items():
        if isinstance(config.get(ours), int) and not (arch == "lfm2" and "kv" in theirs):
            if theirs in facts:
                continue
            writer.add_uint32(f"{arch}.{theirs}", config[ours])
    epsilon = next(config[name] for name in _EPSILONS if name in config)
    for kind in ("layer_norm_rms", "layer_norm"):
        writer.add_float32(f"{arch}.attention.{kind}_epsilon", epsilon)
    rope = config["rope_parameters"]
    if isinstance(rope.get("rope_theta"), float):
        writer.add_float32(f"{arch}.rope.freq_base", rope["rope_theta"])
    if arch == "lfm2":
        heads = [config["num_key_value_heads"] * (kind != "conv") for kind in config["layer_types"]]
        writer.add_key_value("lfm2.attention.head_count_kv", heads, gguf.GGUFValueType.ARRAY)
        writer.add_uint32("lfm2.shortconv.l_cache", config["conv_L_cache"])
    for name, value in facts.items():
        kind = gguf.GGUFValueType.get_type(value)
        kind = gguf.GGUFValueType.UINT32 if type(value) is int else kind
        writer.add_key_value(f"{arch}.{name}", value, kind)
    _add_tokens(writer, folder, config["vocab_size"])
    table = gguf.get_tensor_name_map(
        {name: number for number, name in gguf.MODEL_ARCH_NAMES.items()}[arch],
        config["num_hidden_layers"],
    )
    for name, array in _converted(folder, config, table, arch).items():
        kind = kind_of(name, array)
        if kind is None:
            continue
        writer.add_tensor(name, gguf.quants.quantize(array, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return file


def _converted(
    folder: Path, config: dict[str, Any], table: Any, arch: str
) -> dict[str, np.ndarray]:
    tensors, found = FileTensors(folder), dict[str, np.ndarray]()
    joined: dict[str, dict[str, np.ndarray]] = {}
    stacks: dict[str, dict[int, np.ndarray]] = {}
    for name in tensors.shapes:
        module, _, suffix = name.rpartition(".")
        array = tensors.get(name).float().numpy()
        expert = re.search(r"\.experts\.(\d+)\.", name)
        theirs = table.get_name(re.sub(r"\.experts\.\d+\.", ".experts.", module)) or table.get_name(
            module
        )
        part = re.search(r"layers\.(\d+)\.self_attn\.([qkv])_proj", module)
        if part and arch in JOINED:
            joined.setdefault(f"blk.{part[1]}.attn_qkv.{suffix}", {})[part[2]] = array
            continue
        assert theirs, name
        if expert:
            stacks.setdefault(f"{theirs}.{suffix}", {})[int(expert[1])] = array
        else:
            found[f"{theirs}.{suffix}"] = _as_theirs(theirs, array, config, arch)
    for name, several in joined.items():
        found[name] = np.concatenate([several[one] for one in "qkv"])
    for name, parts in stacks.items():
        found[name] = np.stack([parts[number] for number in sorted(parts)])
    return found


def _as_theirs(name: str, array: np.ndarray, config: dict[str, Any], arch: str) -> np.ndarray:
    kind, heads = config["model_type"], 0
    if arch in ROTATED and name.endswith("attn_q"):
        heads = config["num_attention_heads"]
    if arch in ROTATED and name.endswith("attn_k"):
        heads = config["num_key_value_heads"]
    if heads:
        # Rotary pairs are halves of a head here, and neighbours there.
        return array.reshape(heads, 2, -1, *array.shape[1:]).swapaxes(1, 2).reshape(array.shape)
    if name.endswith("shortconv.conv"):
        return array[:, 0]
    return array + 1 if kind == "gemma3_text" and name.endswith("norm") else array


def _add_tokens(writer: Any, folder: Path, count: int) -> None:
    saved = json.loads((folder / "tokenizer.json").read_text("utf-8"))
    vocabulary = saved["model"]["vocab"]
    names = {number: token for token, number in vocabulary.items()}
    special = {token["id"] for token in saved["added_tokens"] if token["special"]}
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list([names.get(number, f"<unused {number}>") for number in range(count)])
    writer.add_token_types([3 if number in special else 1 for number in range(count)])
    merges = saved["model"]["merges"]
    writer.add_token_merges([one if isinstance(one, str) else " ".join(one) for one in merges])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_add_bos_token(False)
    writer.add_chat_template(CHATML)
