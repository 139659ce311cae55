"""Tokenizers as the guide sees them: the bytes of tokens, canonical tokens, special ones, sizes."""

import json
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace
from support.checkpoints import (
    llama_pieces,
    save_tiny,
    sentencepiece_file,
    tiny_config,
    tiny_tokenizer,
    world_vocabulary,
)
from support.guided import answer, open_tiny
from tokenizers import normalizers

from llmchat.engines import Sampling
from llmchat.engines.guide import Guide, Guides
from llmchat.engines.guide.table import TokenTable
from llmchat.engines.tokenizer import Tokenizer
from llmchat.errors import Mismatch, UsageError
from llmchat.prompt import Prompt
from llmchat.structure import ANY_JSON, Structure, from_choices, from_grammar, from_regex
from llmchat.tool_syntax.lark import HEADER

pytestmark = pytest.mark.usefixtures("one_thread")
TEXT = 'the fox said: "the é and 漢", the answer'


def byte_level(folder: Path) -> Tokenizer:
    tiny_tokenizer().save_pretrained(folder)
    return Tokenizer(folder)


def sentencepiece(folder: Path) -> Tokenizer:
    pieces = llama_pieces("▁t", "he", "▁the", "ox", "▁f", "▁fox", "▁", *"thefox.:{", "{t", "{the")
    (folder / "tokenizer.model").write_bytes(sentencepiece_file(pieces))
    return Tokenizer(folder)


def world(folder: Path) -> Tokenizer:
    (folder / "rwkv_vocab_v20230424.txt").write_text(world_vocabulary("the", " fox", '{"'))
    return Tokenizer(folder)


KINDS = {"byte-level": (byte_level, 320), "sentencepiece": (sentencepiece, 278),
         "world": (world, 260)}  # fmt: skip


@pytest.fixture(params=KINDS)
def tokens(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Tokenizer, int]:
    open_, count = KINDS[request.param]
    return open_(tmp_path), count


def guide_of(tokens: Tokenizer, count: int, structure: Structure, **prompt: Any) -> Guide:
    guides = Guides(tokens, count)
    stop_ids = tokens.end_ids
    guide = guides.guide(Prompt("x", (), **prompt), Sampling(structure=structure), stop_ids)
    assert guide is not None
    return guide


def test_spellings_are_those_of_each_token(tokens: tuple[Tokenizer, int]) -> None:
    tokenizer, count = tokens
    assert tokenizer.spellings(count) == [tokenizer.spelling(number) for number in range(count)]
    assert tokenizer.spellings(count + 7)[count:] == [b""] * 7


def test_a_text_within_an_answer_has_the_tokens_of_the_tokenizer(
    tokens: tuple[Tokenizer, int],
) -> None:
    """Without the space that sentencepiece puts before a text."""
    tokenizer, count = tokens
    table = TokenTable(tokenizer, count)
    ids = table.ids(TEXT)
    assert b"".join(map(table.spelling, ids)) == TEXT.encode()
    behind = tokenizer.ids("." + TEXT)
    assert behind[-len(ids) :] == ids


def test_forced_text_is_tokenized_as_the_tokenizer_would(tmp_path: Path) -> None:
    """Also where a merge spans what the grammar writes in two pieces."""
    tokenizer = sentencepiece(tmp_path)
    grammar = from_grammar('start: "{" "the fo" "x: " /[0-9]/')
    guide = guide_of(tokenizer, 278, grammar)
    forced = guide.forced()
    names = [tokenizer.name_of(number) for number in forced]
    assert names == ["{the", "▁fox", ":", "▁"] or names == ["{the", "▁fox", ":"]


def test_the_first_characters_of_several_bytes_are_forced_byte_by_byte(tmp_path: Path) -> None:
    tokenizer = byte_level(tmp_path)
    guide = guide_of(tokenizer, 320, from_regex("漢[é漢]"))
    for token in guide.forced():
        guide.accept(token)
    mask = guide.mask()
    assert mask is not None
    allowed = {tokenizer.spelling(number) for number in range(320) if number in mask}
    assert allowed == {"é".encode()[:1], "漢".encode()[:1]}


def test_a_special_token_is_no_text_unless_the_grammar_names_it(tmp_path: Path) -> None:
    tokenizer = byte_level(tmp_path)
    special = tokenizer.id_of("<|im_end|>")
    assert special is not None
    texts = guide_of(tokenizer, 320, from_choices(["<|im_end|>"])).forced()
    assert texts and special not in texts
    named = guide_of(tokenizer, 320, from_grammar('start: "the" <|im_end|>'))
    assert named.forced()[-1] == special
    mask = guide_of(tokenizer, 320, from_regex("(?s:.*)")).mask()
    assert mask is not None
    assert [number for number in range(5) if number in mask] == [2], "the stop token"


def test_marks_of_tool_grammars_are_special_tokens_where_the_model_has_them(
    tmp_path: Path,
) -> None:
    lark = f'{HEADER}\nstart: mark_0 "x"\nmark_0: "<|im_start|>"'
    forced = guide_of(byte_level(tmp_path), 320, from_grammar(lark)).forced()
    assert forced[0] == 3


def test_an_unknown_special_token_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Mismatch, match="python_tag"):
        guide_of(byte_level(tmp_path), 320, from_grammar('start: <|python_tag|> "a"'))


@pytest.mark.parametrize("count", [300, 310, 350])
def test_the_model_may_have_more_or_fewer_tokens_than_its_tokenizer(
    tmp_path: Path, count: int
) -> None:
    mask = guide_of(byte_level(tmp_path), count, from_regex("(?s:.*)")).mask()
    assert mask is not None
    allowed = [number for number in range(mask.count) if number in mask]
    assert max(allowed) == min(count, 310) - 1, "the tokenizer has 310"


def test_padded_ids_are_never_chosen(tmp_path: Path) -> None:
    config = tiny_config(vocab_size=400, max_position_embeddings=512)
    engine = open_tiny(save_tiny(tmp_path, config))
    sampling = Sampling(temperature=5, max_tokens=60, structure=from_regex("[^a]{20}"))
    for seed in range(3):
        text, finish, _ = answer(engine, replace(sampling, seed=seed))
        assert finish.reason == "stop"
        assert len(text) == 20 and "a" not in text


def test_a_tokenizer_that_changes_the_text_cannot_be_guided(tmp_path: Path) -> None:
    tokenizer = tiny_tokenizer()
    tokenizer.backend_tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.save_pretrained(tmp_path)
    with pytest.raises(Mismatch, match="changes the text"):
        TokenTable(Tokenizer(tmp_path), 320)


def test_an_answer_of_a_sentencepiece_model_holds(tmp_path: Path) -> None:
    save_tiny(tmp_path, tiny_config(vocab_size=278, max_position_embeddings=512))
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (tmp_path / name).unlink()
    sentencepiece(tmp_path)
    engine = open_tiny(tmp_path)
    schema = {"type": "object", "properties": {"the fox": {"enum": ["{the", "hot"]}},
              "required": ["the fox"], "additionalProperties": False}  # fmt: skip
    sampling = Sampling(
        temperature=5, max_tokens=100, seed=1, structure=Structure("schema", json.dumps(schema))
    )
    text, finish, _ = answer(engine, sampling)
    assert finish.reason == "stop"
    assert json.loads(text)["the fox"] in ("{the", "hot")


def test_of_two_tokens_with_the_same_bytes_the_one_in_use_is_allowed(tmp_path: Path) -> None:
    tokenizer = sentencepiece(tmp_path)
    mask = guide_of(tokenizer, 278, from_regex("[te.z]")).mask()
    assert mask is not None
    allowed = {tokenizer.name_of(number) for number in range(278) if number in mask}
    assert allowed == {"t", "e", ".", "<0x7A>"}


def test_a_vocabulary_that_cannot_spell_the_structure_says_so(tmp_path: Path) -> None:
    """T5's has neither braces nor single bytes."""
    words = ["▁The", "▁answer", "▁is", "▁4", "2", ",", "▁or", "▁so", "yes", "no", "▁"]
    pieces = [("<unk>", 0.0, 2), ("</s>", 0.0, 3), *((word, -1.0, 1) for word in words)]
    (tmp_path / "spiece.model").write_bytes(sentencepiece_file(pieces, bpe=False))
    tokenizer = Tokenizer(tmp_path)
    count = len(pieces)
    guide = guide_of(tokenizer, count, from_choices(["yes, no", "no"]))
    mask = guide.mask()
    assert mask is not None
    assert [number for number in range(count) if number in mask] == [10, 11]
    for structure in (from_choices(["漢"]), ANY_JSON):
        with pytest.raises(Mismatch, match="cannot follow the structure"):
            guide_of(tokenizer, count, structure)


# An answer that goes on


def test_a_structure_continues_the_answer_that_has_begun(tmp_path: Path) -> None:
    engine = open_tiny(save_tiny(tmp_path))
    sampling = Sampling(
        temperature=5, seed=1, max_tokens=40, structure=from_regex("the (fox|dog): [0-9]{3}")
    )
    text, finish, _ = answer(engine, sampling, "who? the fo", begun="the fo")
    assert finish.reason == "stop"
    assert text.startswith("x: ") and len(text) == 6
    assert answer(engine, sampling, "the dog: 123", begun="the dog: 123")[:2][0] == ""
    with pytest.raises(UsageError, match="does not have the structure"):
        answer(engine, sampling, "a cat", begun="a cat")
