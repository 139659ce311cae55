"""Tiny checkpoints of many architectures, and their answers by transformers and by our engine."""

from pathlib import Path
from typing import Any

import torch
import transformers

from llmchat.engines import Chunk, Finish, Sampling
from llmchat.engines.transformers import TransformersEngine
from llmchat.engines.transformers.executor import SequenceInput
from llmchat.prompt import Prompt
from support.checkpoints import maker

COUNT = 12


GREEDY = Sampling(temperature=0, max_tokens=COUNT)


QUESTION = "the quick brown fox jumps over the lazy dog, and the answer is here"


PROMPT = Prompt(QUESTION, ())


ENDS = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0, "vocab_size": 320}


# Most families name their sizes like this, the older ones like GPT-2.
LLAMA_LIKE = ENDS | {
    "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2,
    "num_attention_heads": 4, "max_position_embeddings": 256,
}  # fmt: skip


GROUPED = LLAMA_LIKE | {"num_key_value_heads": 2}


GPT_LIKE = ENDS | {"n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": 256}


T5 = {
    "vocab_size": 320, "d_model": 64, "d_kv": 16, "d_ff": 128, "num_layers": 2, "num_heads": 4,
    "n_positions": 512, "pad_token_id": 0, "eos_token_id": 2, "decoder_start_token_id": 0,
    "feed_forward_proj": "gated-gelu", "tie_word_embeddings": False,
}  # fmt: skip


GEMMA = GROUPED | {
    "head_dim": 16,
    "sliding_window": 8,
    "layer_types": ["sliding_attention", "full_attention"],
}


BART = ENDS | {
    "d_model": 64, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 4,
    "decoder_attention_heads": 4, "encoder_ffn_dim": 96, "decoder_ffn_dim": 96,
    "max_position_embeddings": 256, "decoder_start_token_id": 0, "forced_eos_token_id": None,
}  # fmt: skip


VISION = {
    "depth": 1,
    "hidden_size": 32,
    "num_heads": 2,
    "intermediate_size": 32,
    "out_hidden_size": 64,
    "embed_dim": 32,
    "deepstack_visual_indexes": [],
}


QKV = ["q_proj", "v_proj"]


ARCHITECTURES: dict[str, tuple[str, dict[str, Any], list[str]]] = {
    "llama": ("LlamaConfig", GROUPED, QKV),
    "mistral": ("MistralConfig", GROUPED | {"sliding_window": 8}, QKV),
    "qwen2": ("Qwen2Config", GROUPED, QKV),
    "qwen3": ("Qwen3Config", GROUPED | {"head_dim": 16}, QKV),
    "gemma2": ("Gemma2Config", GEMMA, QKV),
    "gemma3": ("Gemma3TextConfig", GEMMA, QKV),
    "phi3": ("Phi3Config", GROUPED, ["qkv_proj", "gate_up_proj"]),
    "smollm3": ("SmolLM3Config", GROUPED, QKV),
    "gpt-neox": ("GPTNeoXConfig", LLAMA_LIKE, ["query_key_value"]),
    "gpt-j": ("GPTJConfig", GPT_LIKE | {"rotary_dim": 8}, QKV),
    "gpt-bigcode": ("GPTBigCodeConfig", GPT_LIKE | {"multi_query": True}, ["c_attn"]),
    "gpt2": ("GPT2Config", GPT_LIKE, ["c_attn", "c_proj"]),
    "falcon 7b": (
        "FalconConfig",
        LLAMA_LIKE | {"multi_query": True, "parallel_attn": True},
        ["query_key_value"],
    ),
    "falcon 40b": (
        "FalconConfig",
        LLAMA_LIKE | {"new_decoder_architecture": True, "num_kv_heads": 2},
        ["query_key_value"],
    ),
    "falcon rw": (
        "FalconConfig",
        LLAMA_LIKE | {"multi_query": False, "parallel_attn": False, "alibi": True, "bias": True},
        ["query_key_value"],
    ),
    "mpt": (
        "MptConfig",
        ENDS | {"d_model": 64, "n_heads": 4, "n_layers": 2, "max_seq_len": 256},
        ["Wqkv"],
    ),
    "bloom": (
        "BloomConfig",
        ENDS | {"hidden_size": 64, "n_layer": 4, "n_head": 4},
        ["query_key_value"],
    ),
    "stablelm": ("StableLmConfig", GROUPED, QKV),
    "t5": ("T5Config", T5, ["q", "v", "wo"]),
    "t5 tied": (
        "T5Config",
        T5 | {"feed_forward_proj": "relu", "tie_word_embeddings": True},
        ["q", "v"],
    ),
    "bart": ("BartConfig", BART, QKV),
    "rwkv": (
        "RwkvConfig",
        ENDS | {"hidden_size": 64, "num_hidden_layers": 7, "intermediate_size": 96},
        ["key", "value", "receptance"],
    ),
}


# Weights with which a random model does not repeat itself.
SEEDS = {"gemma2": 7, "gemma3": 10, "gpt-j": 1, "bloom": 1}


# Nothing of the prompt before can be used again where every token of a prompt sees all others.
READS_ANEW = ("t5", "t5 tied", "bart")


def config_of(name: str) -> Any:
    kind, sizes, _ = ARCHITECTURES[name]
    return getattr(transformers, kind)(**sizes)


def open_engine(base: Path, *adapters: Path, weights: Any = "fp32") -> TransformersEngine:
    return TransformersEngine(base, adapters, weights=weights, device="cpu")


def reference(base: Path) -> Any:
    """Load the model with transformers.

    RWKV's rescaling of its layers is off: it would leave the adapter's part of them unscaled.
    """
    model = maker(transformers.AutoConfig.from_pretrained(base)).from_pretrained(
        base, dtype=torch.float32
    )
    model.config.rescale_every = 0
    return model


def generate(model: Any, ids: list[int]) -> list[int]:
    """What transformers' own loop answers, greedily, without the end token."""
    out = model.generate(
        input_ids=torch.tensor([ids]), max_new_tokens=COUNT, do_sample=False, pad_token_id=0
    )[0].tolist()
    reply = out[1:] if model.config.is_encoder_decoder else out[len(ids) :]
    return reply[: reply.index(2)] if 2 in reply else reply


def greedy(engine: TransformersEngine, ids: list[int], count: int = COUNT) -> list[int]:
    """The same with our forward and its cache: the prompt in one read, then token by token."""
    cache, reply, unread = engine._forward.new_cache(), [], ids
    while len(reply) < count and (not reply or reply[-1] != 2):
        with torch.inference_mode():
            reply.append(int(engine._forward.run([SequenceInput(cache, unread)])[0].argmax()))
        unread = reply[-1:]
    return [token for token in reply if token != 2]


def answer(
    engine: TransformersEngine, prompt: Prompt, sampling: Sampling = GREEDY
) -> tuple[str, Finish]:
    *chunks, finish = engine.stream(prompt, sampling)
    assert isinstance(finish, Finish)
    return "".join(chunk.text for chunk in chunks if isinstance(chunk, Chunk)), finish
