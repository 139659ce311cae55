"""A conversation is tokenised in pieces as it grows, with the ids of the whole text."""

import functools
import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmchat.engines.tokenizer.fast import FastVocabulary
from llmchat.engines.tokenizer.incremental_tokenizer import IncrementalTokenizer

PIECES = [
    "<s>",
    "</s>",
    "<|im_start|>",
    "<|im_end|>",
    "<|im_",
    "start|>",
    "<think>",
    "  ",
    "a",
    " b",
    "é",
    "\n",
    "hello world",
    "<",
    "|>",
    "\u0301",
]
texts = st.lists(
    st.lists(st.sampled_from(PIECES), max_size=12).map("".join), min_size=1, max_size=6
)


def llama() -> Any:
    """Puts a space before the first piece alone, as the newer files of Llama 2 do."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    pieces = ["<unk>", *map(chr, range(32, 127)), "▁", "▁a", "é", "lo", "\n"]
    vocabulary = {piece: number for number, piece in enumerate(pieces)}
    tokenizer = Tokenizer(models.BPE(vocabulary, [("▁", "a"), ("l", "o")], unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    tokenizer.decoder = decoders.Metaspace()
    return tokenizer


def legacy() -> Any:
    """Puts one before every piece."""
    from tokenizers import normalizers

    tokenizer = llama()
    tokenizer.pre_tokenizer = None
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    return tokenizer


def bytewise() -> Any:
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(
        models.BPE({letter: number for number, letter in enumerate(alphabet)}, [])
    )
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


@functools.cache
def vocabulary(kind: Any, **of_specials: bool) -> FastVocabulary:
    from tokenizers import AddedToken

    tokenizer = kind()
    tokenizer.add_special_tokens(
        [
            AddedToken(mark, normalized=False, **of_specials)
            for mark in ("<s>", "</s>", "<|im_start|>", "<|im_end|>")
        ]
    )
    tokenizer.add_tokens(
        [
            AddedToken("<think>", normalized=False),
            AddedToken("  ", normalized=True),
            AddedToken("</s>a<s>", normalized=False),
        ]
    )
    return FastVocabulary(tokenizer)


@pytest.mark.parametrize("kind", [llama, legacy, bytewise])
@pytest.mark.parametrize(
    "of_specials", [{}, {"lstrip": True}, {"rstrip": True}, {"single_word": True}], ids=str
)
@settings(max_examples=200, deadline=None)
@given(texts)
def test_the_ids_are_those_of_the_whole_text(
    kind: Any, of_specials: dict[str, bool], parts: list[str]
) -> None:
    tokens = vocabulary(kind, **of_specials)
    text = ""
    for part in parts:
        text += part
        for said in (text, part, text + "a<s>"):
            assert tokens.ids(said) == tokens._tokenizer.encode(said, add_special_tokens=False).ids


def test_only_the_end_of_a_conversation_is_read() -> None:
    read: list[str] = []

    def encode(text: str) -> list[int]:
        read.append(text)
        return [1 if piece == "<s>" else 2 for piece in re.findall("<s>|.", text)]

    growing = IncrementalTokenizer(encode, {"<s>": 1}, re.compile("<s>"), 3)
    talks = [f"<s>{name}" for name in "abc"]
    for turn in range(5):
        for index in range(len(talks)):
            talks[index] += f"<s>{turn}" * 3
            assert growing.ids(talks[index]) == [1, 2] * (len(talks[index]) // 4)
    assert max(map(len, read[3:])) <= 16, "the last mark and what is new"
    assert growing.ids("") == []
