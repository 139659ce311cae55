"""The tokenizer of a checkpoint as facts of a GGUF file: what gguf.py reads, turned round.

llama.cpp has byte pairs with merges (`gpt2`), whose way to cut words has a name, and the byte pairs
of sentencepiece (`llama`), whose order is in the scores of the tokens. What is written is read
again and compared, so a tokenizer that these cannot express is refused.
"""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmchat.engines.tokenizer import Tokenizer as CheckpointTokenizer
from llmchat.engines.tokenizer import gguf
from llmchat.engines.tokenizer.fast import FastVocabulary
from llmchat.engines.tokenizer.files import open_vocabulary
from llmchat.engines.tokenizer.sentencepiece import BYTE, CONTROL, NORMAL, UNKNOWN, WRITTEN
from llmchat.errors import Mismatch
from llmchat.parse_guard import shown

if TYPE_CHECKING:
    from tokenizers import Tokenizer

_UNUSED = 5
_BYTE_NAME = re.compile(r"<0x[0-9A-F]{2}>")
_SPECIALS = {"bos": "bos_token", "unknown": "unk_token", "padding": "pad_token"}
# The score of a token that no merge makes, below all others.
_NEVER = -1e6
# Ways to cut words differ in contractions, numbers, marks, spaces, scripts and combined letters.
_TEXTS = (
    "Hello, world! It's 12345 o'clock; we'LL see 3.14 and x_y+=1.\n\n  def f(a):\n\treturn a\r\n",
    "Ünïcödé 日本語のテキスト на русском 한국어 العربية हिन्दी 😀👍🏽 ½ ① e\u0301 ﬁ",
    " leading and trailing   spaces \n \n\n\n x\t\ty  ",
    "'s't're 100000 1,000 ---===*** <<>> {{}} a1b2c3 ABCdef HTTPServer. ok?!\n",
)


def facts_of(folder: Path, rows: int) -> dict[str, Any]:
    """The keys tokenizer.ggml.… of a checkpoint. rows: of its embedding, one a token.

    Raises Mismatch for a tokenizer that llama.cpp would read differently.
    """
    vocabulary = open_vocabulary(folder)
    if not isinstance(vocabulary, FastVocabulary):
        raise _refused(folder, "it is not one of the tokenizers library")
    own = vocabulary.backend
    saved = json.loads(own.to_str())["model"]
    if saved["type"] != "BPE":
        raise _refused(folder, f"it is of the kind {saved['type']}")
    make = _of_merges if vocabulary.is_byte_level else _of_pieces
    facts = make(folder, own, saved, rows) | _special_ids(folder, vocabulary)
    full = {f"tokenizer.ggml.{name}": value for name, value in facts.items()}
    _check(folder, own, full)
    return full


def _of_merges(folder: Path, own: "Tokenizer", saved: dict[str, Any], rows: int) -> dict[str, Any]:
    words = _name_of_words(own, ignore_merges=bool(saved.get("ignore_merges")))
    if words is None:
        raise _refused(folder, "llama.cpp has no name for the way in which it cuts words")
    tokens, kinds = _tokens(own, rows)
    merges = [pair if isinstance(pair, str) else " ".join(pair) for pair in saved["merges"]]
    return {
        "model": "gpt2", "pre": words, "tokens": tokens, "token_type": kinds, "merges": merges,
    }  # fmt: skip


def _of_pieces(folder: Path, own: "Tokenizer", saved: dict[str, Any], rows: int) -> dict[str, Any]:
    tokens, kinds = _tokens(own, rows)
    for number, token in enumerate(tokens):
        if token == saved.get("unk_token"):
            kinds[number] = UNKNOWN
        elif kinds[number] == NORMAL and _BYTE_NAME.fullmatch(token):
            kinds[number] = BYTE
    ranks = _ranks(saved["merges"])
    scores = [float(-ranks[token]) if token in ranks else _NEVER for token in tokens]
    described = f"{own.normalizer} {own.pre_tokenizer}"
    return {
        "model": "llama", "pre": "default", "tokens": tokens, "scores": scores,
        "token_type": kinds, "add_space_prefix": _has_leading_space(described),
    }  # fmt: skip


def _has_leading_space(described: str) -> bool:
    """Whether a space is put before a text, by one of the ways of tokenizer.json."""
    return "Prepend(" in described or bool(
        re.search(r"prepend_scheme=\"?(?:first|always)", described)
    )


def _ranks(merges: list[Any]) -> dict[str, int]:
    """The place of each token in the order of the merges that make it."""
    made = ("".join(pair.split(" ") if isinstance(pair, str) else pair) for pair in merges)
    return {token: rank for rank, token in enumerate(dict.fromkeys(made))}


def _tokens(own: "Tokenizer", rows: int) -> tuple[list[str], list[int]]:
    """The token of each row, and its kind; rows without a token are unused."""
    names = {number: token for token, number in own.get_vocab(with_added_tokens=True).items()}
    tokens = [names.get(number, f"[PAD{number}]") for number in range(rows)]
    kinds = [NORMAL if number in names else _UNUSED for number in range(rows)]
    for number, added in own.get_added_tokens_decoder().items():
        if number < rows:
            kinds[number] = CONTROL if added.special else WRITTEN
    return tokens, kinds


def _name_of_words(own: "Tokenizer", *, ignore_merges: bool) -> str | None:
    """llama.cpp's name for the way to cut words; None where no name fits."""
    if own.pre_tokenizer is None:
        return None
    cut = [own.pre_tokenizer.pre_tokenize_str(text) for text in _TEXTS]
    composes = "NFC" in repr(own.normalizer)

    def differs(name: str) -> tuple[bool, bool]:
        return gguf.composes(name) != composes, gguf.keeps_words(name) != ignore_merges

    fitting = [name for name in gguf.names_of_words() if gguf.cut_words(name, _TEXTS) == cut]
    return min(fitting, key=differs, default=None)


def _special_ids(folder: Path, vocabulary: FastVocabulary) -> dict[str, Any]:
    """Which tokens have a meaning, and which are put around a text."""
    tokens = CheckpointTokenizer(folder)
    named = {key: tokens.id_of(tokens.names.get(name, "")) for key, name in _SPECIALS.items()}
    eos = tokens.id_of(tokens.names.get("eos_token", ""))
    ends = sorted(tokens.end_ids, key=lambda number: (number != eos, number))
    named |= dict(zip(("eos", "eot", "eom"), ends, strict=False))
    around = vocabulary.around()
    return {
        **{f"{key}_token_id": number for key, number in named.items() if number is not None},
        "add_bos_token": named["bos"] is not None and named["bos"] in around,
        "add_eos_token": eos is not None and around[-1:] == [eos],
    }


def _check(folder: Path, own: "Tokenizer", facts: Mapping[str, Any]) -> None:
    """Raise Mismatch where the facts make other ids of a text than the tokenizer."""
    read, count = gguf.tokenizer_of(facts), len(facts["tokenizer.ggml.tokens"])
    added = own.get_added_tokens_decoder()
    marks = " ".join(token.content for number, token in added.items() if number < count)
    for text in (*_TEXTS, marks):
        if read is None or _ids(read, text) != _ids(own, text):
            raise _refused(folder, f"llama.cpp would read {shown(repr(text))} as other tokens")


def _ids(tokenizer: "Tokenizer", text: str) -> list[int]:
    return list(tokenizer.encode(text, add_special_tokens=False).ids)


def _refused(folder: Path, why: str) -> Mismatch:
    return Mismatch(
        f"the tokenizer of {folder.name} cannot be written to a GGUF file: {why}",
        "`--to int4` writes the model for llmchat",
    )
