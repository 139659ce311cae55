"""Read config and special tokens from the header of a GGUF file.

Names are those of checkpoints; tensors are not read.
"""

import json
import re
from pathlib import Path
from typing import Any

from llmchat.errors import IntegrityError
from llmchat.gguf_file import GgufHeader, read_header
from llmchat.parse_guard import reading

_CONFIG = {
    "block_count": "num_hidden_layers",
    "embedding_length": "hidden_size",
    "context_length": "max_position_embeddings",
    "attention.head_count": "num_attention_heads",
    "attention.head_count_kv": "num_key_value_heads",
    "attention.key_length": "head_dim",
}

# The kinds of tokens, llama.cpp's enum llama_token_type.
_UNKNOWN, _CONTROL, _USER_DEFINED = 2, 3, 4
_SPECIALS = {"bos": "bos", "eos": "eos", "unk": "unknown", "pad": "padding"}
# Tokens that end a turn: llama.cpp treats them as special even where a file calls them words.
_LIKE_A_MARK = re.compile(r"<\|[^|<>\s]{1,40}\|>|</?s>|<(?:start|end)_of_turn>|<｜[^｜]{1,40}｜>")


def numbers_of(header: GgufHeader) -> dict[str, Any]:
    """The numbers of a config that memory depends on, for an architecture that is not known."""
    kind = str(header.facts.get("general.architecture", ""))
    values = {ours: header.facts.get(f"{kind}.{theirs}") for theirs, ours in _CONFIG.items()}
    # Some architectures have a list, with a number for each layer.
    largest = {
        name: max(value) if isinstance(value, list) and value else value
        for name, value in values.items()
    }
    return {"model_type": kind} | {
        name: value for name, value in largest.items() if type(value) is int
    }


def write_facts(path: Path, folder: Path) -> None:
    """Write config.json and tokenizer_config.json, without a vocabulary, for llama.cpp's engine.

    Raises IntegrityError for a file that is not a GGUF or holds no language model.
    """
    facts = read_header(path).facts
    with reading(path):
        _write(facts, path, folder)


def _write(facts: dict[str, Any], path: Path, folder: Path) -> None:
    tokens, kinds = facts.get("tokenizer.ggml.tokens"), facts.get("tokenizer.ggml.token_type")
    if not tokens or not kinds or f"{facts['general.architecture']}.context_length" not in facts:
        raise IntegrityError(
            f"{path.name} holds no language model: it is a GGUF file without a vocabulary"
        )
    (folder / "config.json").write_text(json.dumps(_config(facts)), "utf-8")
    (folder / "tokenizer_config.json").write_text(
        json.dumps(tokenizer_config(facts), ensure_ascii=False), "utf-8"
    )


def _config(fields: dict[str, Any]) -> dict[str, Any]:
    kind = fields["general.architecture"]
    known = {ours: fields.get(f"{kind}.{theirs}") for theirs, ours in _CONFIG.items()}
    ends = [
        fields[f"tokenizer.ggml.{name}_token_id"]
        for name in ("eos", "eot", "eom")
        if f"tokenizer.ggml.{name}_token_id" in fields
    ]
    if not all(type(number) is int and number >= 0 for number in ends):
        raise ValueError("it names no valid end token")
    # Some architectures have a list, with a number for each layer.
    return {"model_type": kind, "eos_token_id": ends} | {
        name: value for name, value in known.items() if isinstance(value, int)
    }


def tokenizer_config(fields: dict[str, Any]) -> dict[str, Any]:
    """The tokenizer_config.json of a header: special tokens and the chat template."""
    tokens = fields.get("tokenizer.ggml.tokens") or []
    kinds = fields.get("tokenizer.ggml.token_type") or [1] * len(tokens)
    named = {
        f"{ours}_token": fields.get(f"tokenizer.ggml.{theirs}_token_id")
        for ours, theirs in _SPECIALS.items()
    }
    added = {
        str(number): {"content": token, "special": kind != _USER_DEFINED}
        for number, (token, kind) in enumerate(zip(tokens, kinds, strict=True))
        if kind in (_UNKNOWN, _CONTROL, _USER_DEFINED) or _LIKE_A_MARK.fullmatch(token)
    }
    template = fields.get("tokenizer.chat_template")
    return (
        {
            name: tokens[number]
            for name, number in named.items()
            if type(number) is int and 0 <= number < len(tokens)
        }
        | {"added_tokens_decoder": added}
        | ({"chat_template": template} if template else {})
    )
