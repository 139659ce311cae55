"""Tiny checkpoints of a few hundred kilobytes: random weights with a real tokenizer."""

import struct
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    LlamaConfig,
    PreTrainedTokenizerFast,
    Qwen3MoeConfig,
)

SPECIALS = ["<unk>", "<s>", "</s>", "<|im_start|>", "<|im_end|>"]
CHATML = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def tiny_tokenizer() -> PreTrainedTokenizerFast:
    """A byte-level BPE of 320 tokens that can spell any text; ids 0 to 4 are special tokens."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=320,
        special_tokens=SPECIALS,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(
        ["the quick brown fox jumps over the lazy dog", "question and answer, the answer is here"]
        * 20,
        trainer,
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        unk_token="<unk>",
        bos_token="<s>",
        eos_token="</s>",
        chat_template=CHATML,
    )


def maker(config: Any) -> Any:
    """The class of transformers that loads what was made from `config`."""
    return AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM


def save_tiny(
    folder: Path, config: Any = None, dtype: torch.dtype = torch.float32, seed: int = 0
) -> Path:
    """Save a random model and the tiny tokenizer; the default config is a small Llama."""
    torch.manual_seed(seed)
    tokenizer = tiny_tokenizer()
    config = config or tiny_config()
    if config.is_encoder_decoder:
        closing = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 2)])
        tokenizer.backend_tokenizer.post_processor = closing
    model = maker(config).from_config(config).to(dtype)
    if not getattr(config, "scale_decoder_outputs", True):
        # T5 1.1 has an untied head, but transformers derives a tied one from its config.
        model.lm_head.weight = torch.nn.Parameter(torch.empty_like(model.lm_head.weight))
        model.config.tie_word_embeddings = False
    with torch.no_grad():
        # With the usual small initialisation a random model repeats one token for ever.
        for name, parameter in model.named_parameters():
            if parameter.dim() > 1 or name.endswith("bias"):
                parameter.normal_(std=0.3 / parameter.shape[-1] ** 0.25)
            elif config.tie_word_embeddings:
                # A tied head would repeat the last token; random norms rotate away from it.
                parameter.add_(torch.randn_like(parameter))
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def tiny_config(**changes: Any) -> LlamaConfig:
    settings = {
        "vocab_size": 320, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 256,
        "bos_token_id": 1, "eos_token_id": 2, "tie_word_embeddings": False,
    }  # fmt: skip
    return LlamaConfig(**(settings | changes))


def tiny_experts_config(**changes: Any) -> Qwen3MoeConfig:
    """A mixture of experts; transformers assembles its tensors when it loads them."""
    settings = {
        "vocab_size": 320, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 256,
        "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32, "head_dim": 16,
        "decoder_sparse_step": 1, "mlp_only_layers": [],
    }  # fmt: skip
    return Qwen3MoeConfig(**(settings | changes))


def save_adapter(folder: Path, base: Path, *, seed: int = 1, std: float = 0.2, **lora: Any) -> Path:
    """Let peft save a random, non-zero LoRA for the model in `base`, which may be a GGUF file."""
    import peft

    config = AutoConfig.from_pretrained(base)
    if any(base.glob("*.safetensors")):
        model = maker(config).from_pretrained(base, dtype=torch.float32)
    else:  # Only what an adapter saves of the base itself needs weights.
        model = maker(config).from_config(config, dtype=torch.float32)
    settings = {
        "r": 4,
        "lora_alpha": 8,
        "target_modules": ["q_proj", "v_proj"],
        "task_type": "CAUSAL_LM",
    } | lora
    tuned = peft.get_peft_model(model, peft.LoraConfig(**settings))
    torch.manual_seed(seed)
    for name, parameter in tuned.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(parameter, std=std)
    tuned.save_pretrained(folder)
    return folder


def sentencepiece_file(
    pieces: list[tuple[str, float, int]],
    *,
    bpe: bool = True,
    single_spaces: bool = False,
    bytes_too: bool | None = None,
) -> bytes:
    """The bytes of a sentencepiece model.

    pieces: text, score and kind (1 normal, 2 unknown, 3 control, 4 user-defined, 6 byte).
    bytes_too: whether it falls back to bytes; None: as `bpe`.
    """
    written = b"".join(
        _field(1, _field(1, text.encode()) + b"\x15" + struct.pack("<f", score) + _field(3, kind))
        for text, score, kind in pieces
    )
    trainer = _field(3, 2 if bpe else 1) + _field(35, int(bpe if bytes_too is None else bytes_too))
    return (
        written
        + _field(2, trainer)
        + _field(3, _field(1, b"identity") + _field(4, int(single_spaces)))
    )


def llama_pieces(*texts: str) -> list[tuple[str, float, int]]:
    """The first pieces of LLaMA's vocabulary, then `texts` in their order of merging."""
    bytes_ = [(f"<0x{byte:02X}>", 0.0, 6) for byte in range(256)]
    return [
        ("<unk>", 0.0, 2),
        ("<s>", 0.0, 3),
        ("</s>", 0.0, 3),
        *bytes_,
        *((text, -float(rank), 1) for rank, text in enumerate(texts)),
    ]


def world_vocabulary(*tokens: str) -> str:
    """A vocabulary file as the RWKV World models bring it: the single bytes, then these."""
    lines = [
        f"{byte + 1} {chr(byte)!r} 1" if byte < 128 else f"{byte + 1} {bytes([byte])!r} 1"
        for byte in range(256)
    ]
    return (
        "\n".join(
            [
                *lines,
                *(
                    f"{number} {token!r} {len(token.encode())}"
                    for number, token in enumerate(tokens, 257)
                ),
            ]
        )
        + "\n"
    )


def _field(number: int, value: bytes | int) -> bytes:
    if isinstance(value, int):
        return _varint(number << 3) + _varint(value)
    return _varint(number << 3 | 2) + _varint(len(value)) + value


def _varint(value: int) -> bytes:
    return bytes([value & 0x7F | 0x80]) + _varint(value >> 7) if value > 0x7F else bytes([value])
