"""Writes a checkpoint's tokenizer for other programs."""

import json
from pathlib import Path

from llmchat.engines.tokenizer import LLAMA_NAMES, Tokenizer
from llmchat.engines.tokenizer.fast import FastVocabulary
from llmchat.engines.tokenizer.files import open_vocabulary
from llmchat.errors import Mismatch


def save_tokenizer(folder: Path, target: Path) -> None:
    """Write a checkpoint's tokenizer to `target`, for programs that would read its own files
    differently: a tokenizer.json, and the class that takes it unchanged.

    Raises Mismatch for a vocabulary that tokenizer.json cannot hold.
    """
    vocabulary = open_vocabulary(folder)
    if not isinstance(vocabulary, FastVocabulary):
        raise Mismatch(f"the tokenizer of {folder} cannot be written as a tokenizer.json")
    target.mkdir(parents=True, exist_ok=True)
    vocabulary.save(target / "tokenizer.json")
    names = {
        key: name
        for key, name in Tokenizer(folder).names.items()
        if key in (*LLAMA_NAMES, "pad_token")
    }
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "clean_up_tokenization_spaces": False,
        **names,
    }
    (target / "tokenizer_config.json").write_text(
        json.dumps(config, indent=2, ensure_ascii=False) + "\n", "utf-8"
    )
