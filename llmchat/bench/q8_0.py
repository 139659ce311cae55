"""Write a Llama checkpoint as a Q8_0 GGUF file, so that llama.cpp can run the same weights.

`python -m llmchat.bench.q8_0 FOLDER FILE`. For measurements only: prompts are token ids, and the
vocabulary of the file only names them.
"""

import json
import sys
from pathlib import Path
from typing import Any

from llmchat.engines.checkpoint_files import read_json

_TENSORS = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
}


def supports(config: dict[str, Any]) -> bool:
    return (
        config.get("model_type") in ("llama", "mistral")
        and not config.get("attention_bias")
        and not config.get("mlp_bias")
    )


def write(folder: Path, file: Path) -> None:
    """Write tensor by tensor; `file` appears when it is complete."""
    import gguf

    from llmchat.engines.transformers.weights import open_tensors

    config, tensors = read_json(folder / "config.json"), open_tensors(folder, ())
    unfinished = file.with_name(f"{file.name}.part")
    writer = gguf.GGUFWriter(str(unfinished), "llama", use_temp_file=True)
    _describe(writer, config)
    _name_tokens(writer, folder, config["vocab_size"])
    _add_tensors(writer, config, tensors)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    unfinished.rename(file)


def _add_tensors(writer: Any, config: dict[str, Any], tensors: Any) -> None:
    import gguf

    q8_0 = gguf.GGMLQuantizationType.Q8_0

    def add(theirs: str, ours: str, heads: int = 0) -> None:
        array = tensors.get(theirs).float().numpy()
        if array.ndim == 1:
            writer.add_tensor(ours, array)
            return
        array = _interleaved(array, heads) if heads else array
        writer.add_tensor(ours, gguf.quants.quantize(array, q8_0), raw_dtype=q8_0)

    add("model.embed_tokens.weight", "token_embd.weight")
    add("model.norm.weight", "output_norm.weight")
    if "lm_head.weight" in tensors.shapes and not config.get("tie_word_embeddings"):
        add("lm_head.weight", "output.weight")
    heads = config["num_attention_heads"]
    rotary = {"attn_q": heads, "attn_k": config.get("num_key_value_heads") or heads}
    for layer in range(config["num_hidden_layers"]):
        for theirs, ours in _TENSORS.items():
            source, target = f"model.layers.{layer}.{theirs}", f"blk.{layer}.{ours}"
            add(f"{source}.weight", f"{target}.weight", rotary.get(ours, 0))


def _interleaved(array: Any, heads: int) -> Any:
    """Reorder the rows of each head [rows, columns]: in GGUF rotary pairs are adjacent.

    In Hugging Face's checkpoints they are half a head apart.
    """
    rows, columns = array.shape
    pairs = array.reshape(heads, 2, rows // heads // 2, columns)
    return pairs.swapaxes(1, 2).reshape(array.shape)


def _describe(writer: Any, config: dict[str, Any]) -> None:
    heads = config["num_attention_heads"]
    rope = config.get("rope_parameters") or {}
    writer.add_context_length(config.get("max_position_embeddings", 2048))
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(heads)
    writer.add_head_count_kv(config.get("num_key_value_heads") or heads)
    writer.add_layer_norm_rms_eps(config.get("rms_norm_eps", 1e-6))
    writer.add_rope_freq_base(rope.get("rope_theta") or config.get("rope_theta") or 10000.0)
    writer.add_rope_dimension_count(config.get("head_dim") or config["hidden_size"] // heads)
    writer.add_vocab_size(config["vocab_size"])


def _name_tokens(writer: Any, folder: Path, count: int) -> None:
    from llmchat.engines.tokenizer import Tokenizer

    tokens = Tokenizer(folder)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(
        [tokens.name_of(number) or f"<unused {number}>" for number in range(count)]
    )
    model = json.loads((folder / "tokenizer.json").read_text("utf-8"))["model"]
    merges = model.get("merges") or ["a b"]
    writer.add_token_merges([_merge_text(merge) for merge in merges])


def _merge_text(merge: str | list[str]) -> str:
    return merge if isinstance(merge, str) else " ".join(merge)


if __name__ == "__main__":
    write(Path(sys.argv[1]), Path(sys.argv[2]))
