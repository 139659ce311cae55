"""Mistral's vocabulary: byte pairs in a tekken.json, for repos without a tokenizer.json.

transformers builds the tokenizer. The format is that of mistral-common,
https://github.com/mistralai/mistral-common: tokens/tokenizers/tekken.py.
"""

from pathlib import Path
from typing import TYPE_CHECKING

from llmchat.parse_guard import reading

if TYPE_CHECKING:
    from tokenizers import Tokenizer

FILE = "tekken.json"
_BOS = "<s>"


def read_tekken(path: Path) -> "Tokenizer":
    """The tokenizer of a tekken.json, which puts <s> before a text. Raises IntegrityError."""
    from tokenizers import Tokenizer, processors
    from transformers.integrations.mistral import MistralConverter

    with reading(path):
        made: Tokenizer = MistralConverter(vocab_file=str(path), add_prefix_space=False).converted()
        number = made.token_to_id(_BOS)
        if number is not None:
            made.post_processor = processors.TemplateProcessing(
                single=f"{_BOS} $A", special_tokens=[(_BOS, number)]
            )
        return made
