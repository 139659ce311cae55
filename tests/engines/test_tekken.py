"""Mistral's tekken.json: ids, special tokens, and prompts of the formats written for it."""

import base64
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmchat.conversation import Message
from llmchat.engines.checkpoint_files import special_tokens
from llmchat.engines.tokenizer import Tokenizer
from llmchat.errors import IntegrityError
from llmchat.presets import get_format
from llmchat.prompt import Prompt

SPECIAL = [
    "<unk>", "<s>", "</s>", "[INST]", "[/INST]", "[AVAILABLE_TOOLS]", "[/AVAILABLE_TOOLS]",
    "[TOOL_RESULTS]", "[/TOOL_RESULTS]", "[TOOL_CALLS]", "[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]",
    "[ARGS]", "[CALL_ID]", "[TOOL_CONTENT]",
]  # fmt: skip
RESERVED = 20
MERGED = ["He", "ll", "llo", "Hello", " w", " wo"]
PATTERN = r"[^\r\n\p{L}\p{N}]?[\p{L}]+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"


def tekken() -> dict[str, Any]:
    """A file of 256 bytes and six merged tokens, as Mistral writes them."""
    spelt = [bytes([number]) for number in range(256)] + [text.encode() for text in MERGED]
    vocab = [
        {"rank": rank, "token_bytes": base64.b64encode(one).decode(), "token_str": None}
        for rank, one in enumerate(spelt)
    ]
    config = {
        "pattern": PATTERN,
        "num_vocab_tokens": len(vocab),
        "default_vocab_size": len(vocab) + RESERVED,
        "default_num_special_tokens": RESERVED,
        "version": "v11",
    }
    specials = [
        {"rank": rank, "token_str": text, "is_control": True} for rank, text in enumerate(SPECIAL)
    ]
    return {"config": config, "vocab": vocab, "special_tokens": specials}


def save(folder: Path, table: Any) -> Path:
    (folder / "tekken.json").write_text(json.dumps(table))
    (folder / "config.json").write_text('{"eos_token_id": 2}')
    return folder


@pytest.fixture(scope="module")
def tokens(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    return Tokenizer(save(tmp_path_factory.mktemp("tekken"), tekken()))


def test_ids_follow_the_reserved_special_tokens(tokens: Tokenizer) -> None:
    assert tokens.ids("Hello wo") == [RESERVED + 256 + 3, RESERVED + 256 + 5]
    assert tokens.encode(Prompt("Hello", ())) == [1, RESERVED + 256 + 3]
    assert tokens.encode(Prompt("<s>Hello", (), bos=False)) == [1, RESERVED + 256 + 3]


def test_special_tokens_are_known_without_the_tokenizer(tmp_path: Path) -> None:
    assert special_tokens(save(tmp_path, tekken())) == set(SPECIAL)


@given(text=st.text(max_size=30))
def test_texts_survive(tokens: Tokenizer, text: str) -> None:
    decode = tokens.decoder()
    ids = tokens.ids(text)
    assert b"".join(tokens.spelling(one) for one in ids) == text.encode("utf-8", "replace")
    assert "".join(map(decode, ids)) == text


@pytest.mark.parametrize("name", ["mistral-tekken-11", "mistral-tekken-13"])
def test_prompt_has_one_token_for_each_mark(name: str, tokens: Tokenizer, tmp_path: Path) -> None:
    form = get_format(name)
    assert form.template
    form = form.with_template(form.template, {}, special_tokens(save(tmp_path, tekken())))
    messages = (Message("system", "Hello"), Message("user", "Say [/INST] </s>"))
    ids = tokens.encode(form.render(messages))
    marks = [tokens.name_of(one) for one in ids if one < RESERVED]
    assert marks == ["<s>", "[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]", "[INST]", "[/INST]"]


def without(key: str) -> dict[str, Any]:
    table = tekken()
    del table[key]
    return table


@pytest.mark.parametrize(
    "table",
    [
        [],
        {},
        without("vocab"),
        without("config"),
        tekken() | {"vocab": [{"rank": 0}]},
        tekken() | {"vocab": 3},
    ],
)
def test_damaged_file_is_one_line(table: Any, tmp_path: Path) -> None:
    with pytest.raises(IntegrityError, match=r"tekken\.json"):
        Tokenizer(save(tmp_path, table))
