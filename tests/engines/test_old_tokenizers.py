"""Tokenizers from before tokenizer.json: sentencepiece files with wrong names beside them, and the
vocabulary of RWKV World.
"""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from support.checkpoints import llama_pieces, save_tiny, sentencepiece_file, world_vocabulary
from transformers import RwkvConfig

from llmchat.engines import Chunk, Finish, Sampling
from llmchat.engines.tokenizer import Tokenizer
from llmchat.engines.tokenizer.rwkv_world import WorldVocabulary
from llmchat.engines.tokenizer.sentencepiece import merges, read_model
from llmchat.engines.transformers import TransformersEngine
from llmchat.errors import IntegrityError
from llmchat.prompt import Prompt

TEXTS = ("▁t", "he", "▁the", "ox", "▁f", "▁fox", "▁", "t", "h", "e", "f", "o", "x", ".")
PIECES = llama_pieces(*TEXTS)
IDS = {text: number for number, (text, _, _) in enumerate(PIECES)}
# The files of decapoda-research/llama-7b-hf, which most adapters of early 2023 were made for.
DECAPODA: dict[str, dict[str, Any]] = {
    "config.json": {"architectures": ["LLaMAForCausalLM"], "bos_token_id": 0, "eos_token_id": 1,
        "model_type": "llama", "pad_token_id": -1},
    "generation_config.json": {"_from_model_config": True, "bos_token_id": 0, "eos_token_id": 1,
        "pad_token_id": 0},
    "tokenizer_config.json": {"bos_token": "", "eos_token": "", "model_max_length": 1e30,
        "tokenizer_class": "LLaMATokenizer", "unk_token": ""},
    "special_tokens_map.json": {},
}  # fmt: skip


def write(
    folder: Path, files: dict[str, dict[str, Any]], pieces: bytes, name: str = "tokenizer.model"
) -> Tokenizer:
    for file, table in files.items():
        (folder / file).write_text(json.dumps(table))
    (folder / name).write_bytes(pieces)
    return Tokenizer(folder)


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    return write(tmp_path_factory.mktemp("decapoda"), DECAPODA, sentencepiece_file(PIECES))


def test_the_first_llama_files_with_their_wrong_ids(llama: Tokenizer) -> None:
    assert llama.encode(Prompt("the fox.", ())) == [1, IDS["▁the"], IDS["▁fox"], IDS["."]]
    assert llama.end_ids == {2}, "not 1, which config.json says and which opens a text"
    assert llama.stop_ids(Prompt("", (), stop_ids=(0,))) == {0, 2}, (
        "an adapter that learnt to end with 0 has a format that says so"
    )
    assert llama.names == {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>"}


def test_never_two_opening_tokens(llama: Tokenizer) -> None:
    assert llama.encode(Prompt("<s>the fox", ())).count(1) == 1
    assert llama.encode(Prompt("<s>the fox", (), bos=False)).count(1) == 1
    assert llama.encode(Prompt("the fox", (), bos=False)) == [IDS["▁the"], IDS["▁fox"]]


def test_a_tokenizer_that_asks_for_no_opening_token_gets_none(tmp_path: Path) -> None:
    files = DECAPODA | {
        "tokenizer_config.json": {
            "add_bos_token": False,
            "bos_token": {"content": "<s>"},
            "tokenizer_class": "LlamaTokenizer",
        }
    }
    assert write(tmp_path, files, sentencepiece_file(PIECES)).encode(Prompt("the fox", ())) == [
        IDS["▁the"],
        IDS["▁fox"],
    ]


def test_what_has_no_piece_is_written_in_bytes(llama: Tokenizer) -> None:
    ids = llama.encode(Prompt("the 🗼", (), bos=False))
    assert ids == [IDS["▁the"], IDS["▁"], *(3 + byte for byte in "🗼".encode())]
    decode = llama.decoder()
    assert [decode(number) for number in ids] == ["the", " ", "", "", "", "🗼"]


def test_a_special_token_in_a_message_is_text(llama: Tokenizer) -> None:
    ids = llama.encode(Prompt("the</s>fox", (), quoted=((0, 10),)))
    assert 2 not in ids and ids[:2] == [1, IDS["▁the"]]
    assert llama.count("</s>") > 1


@settings(deadline=None)
@given(st.text(max_size=30))
@example("\ufffd")
@example("the\ufffd\ufffd fox \ufffd日")
def test_llama_pieces_are_whole_characters_and_make_the_text(llama: Tokenizer, text: str) -> None:
    decode = llama.decoder()
    ids = llama.encode(Prompt(text, (), quoted=((0, len(text)),), bos=False))
    shown = "".join(map(decode, ids))
    assert shown == text.replace("▁", " ")


def test_merges_are_those_of_the_best_pieces_first() -> None:
    assert merges(read_pieces("ab", "abc", "a", "b", "c", "bc")) == [
        ("a", "b"),
        ("ab", "c"),
        ("a", "bc"),
        ("b", "c"),
    ]


def read_pieces(*texts: str) -> tuple[Any, ...]:
    from llmchat.engines.tokenizer.sentencepiece import Piece

    return tuple(Piece(text, -float(rank), 1) for rank, text in enumerate(texts))


def test_the_tokenizer_of_t5(tmp_path: Path) -> None:
    """Unigram pieces, sentinels that no file names, and, for FastChat-T5, tokens behind them that
    bring line ends.
    """
    pieces = [
        ("<pad>", 0.0, 3),
        ("</s>", 0.0, 3),
        ("<unk>", 0.0, 2),
        ("▁the", -1.0, 1),
        ("▁fox", -2.0, 1),
        ("▁", -3.0, 1),
        ("f", -4.0, 1),
    ]
    files = {
        "config.json": {
            "model_type": "t5",
            "is_encoder_decoder": True,
            "eos_token_id": 1,
            "pad_token_id": 0,
        },
        "tokenizer_config.json": {
            "tokenizer_class": "T5Tokenizer",
            "eos_token": "</s>",
            "pad_token": "<pad>",
            "extra_ids": 3,
        },
        "added_tokens.json": {"\n": 10, "{": 11},
    }
    tokens = write(
        tmp_path, files, sentencepiece_file(pieces, bpe=False, single_spaces=True), "spiece.model"
    )
    assert tokens.encode(Prompt("the   fox f", ())) == [3, 4, 5, 6, 1], (
        "closed, as an encoder wants it"
    )
    assert tokens.encode(Prompt("the fox</s>", ())) == [3, 4, 1]
    assert tokens.encode(Prompt("<extra_id_2> the\n{", ())) == [7, 3, 10, 11, 1]
    assert tokens.end_ids == {1}
    decode = tokens.decoder()
    assert "".join(decode(number) for number in (3, 4, 10, 3)) == "the fox\n the"


def test_an_added_token_that_has_another_place_is_refused(tmp_path: Path) -> None:
    with pytest.raises(IntegrityError, match=r"`<pad>` has the id 400"):
        write(tmp_path, {"added_tokens.json": {"<pad>": 400}}, sentencepiece_file(PIECES))


@pytest.mark.parametrize("content", [b"", b"\x0a\xff", b"{}", b"\x0b"])
def test_a_file_that_is_no_sentencepiece_model(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "tokenizer.model").write_bytes(content)
    with pytest.raises(IntegrityError, match="is not a sentencepiece model"):
        read_model(tmp_path / "tokenizer.model")


WORLD = world_vocabulary(
    "\n\n", " the", " t", "the", " fox", "日本", "日本語", "User:", "'quoted'", "a b"
)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> WorldVocabulary:
    path = tmp_path_factory.mktemp("world") / "rwkv_vocab_v20230424.txt"
    path.write_text(WORLD)
    return WorldVocabulary(path)


def test_the_longest_token_is_taken(world: WorldVocabulary) -> None:
    assert world.ids("User: the fox\n\n") == [264, 258, 261, 257]
    assert world.ids("日本語日本日") == [263, 262, *(byte + 1 for byte in "日".encode())]
    assert world.ids(" te'quoted'") == [259, ord("e") + 1, 265]
    assert world.ids("") == []


def test_half_a_character_is_never_shown(world: WorldVocabulary) -> None:
    decode = world.decoder()
    assert [decode(byte + 1) for byte in "日é".encode()] == ["", "", "日", "", "é"]
    assert decode(0) == decode(9999) == ""


@given(st.text(max_size=40))
def test_world_tokens_make_the_text(world_text: str) -> None:
    vocabulary = _shared_world()
    decode = vocabulary.decoder()
    assert "".join(map(decode, vocabulary.ids(world_text))) == world_text


def _shared_world(cache: list[WorldVocabulary] = []) -> WorldVocabulary:  # noqa: B006 (one vocabulary for all examples of a property)
    import tempfile

    if not cache:
        path = Path(tempfile.mkdtemp()) / "rwkv_vocab_v20230424.txt"
        path.write_text(WORLD)
        cache.append(WorldVocabulary(path))
    return cache[0]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("267 'abc' 4", "the token has 3 bytes instead of 4"),
        ("267 __import__('os').getcwd() 3", "is not `number literal length`"),
        ("abc", "is not `number literal length`"),
        ("267 '' 0", "0 bytes instead of 0"),
    ],
)
def test_a_damaged_vocabulary_is_one_clear_line_and_runs_nothing(
    line: str, message: str, tmp_path: Path
) -> None:
    path = tmp_path / "rwkv_vocab_v20230424.txt"
    path.write_text(WORLD + line + "\n")
    with pytest.raises(IntegrityError, match=message):
        WorldVocabulary(path)
    path.write_text("1 'a' 1\n")
    with pytest.raises(IntegrityError, match="lacks 255 of the 256 single bytes"):
        WorldVocabulary(path)


def test_an_rwkv_world_checkpoint_talks(tmp_path: Path) -> None:
    sizes = {"vocab_size": 320, "hidden_size": 64, "num_hidden_layers": 2, "intermediate_size": 96}
    base = save_tiny(tmp_path, RwkvConfig(**sizes, bos_token_id=0, eos_token_id=0), seed=4)
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        (base / name).unlink(missing_ok=True)
    (base / "rwkv_vocab_v20230424.txt").write_text(WORLD)
    (base / "tokenizer_config.json").write_text(
        '{"auto_map": {"AutoTokenizer": ["hf_rwkv_tokenizer.RwkvTokenizer", null]}}'
    )
    engine = TransformersEngine(base, weights="int8", device="cpu")
    assert engine.encode(Prompt("User: the fox\n\n", ())) == [264, 258, 261, 257], (
        "no token opens a text"
    )
    assert 0 in Tokenizer(base).end_ids and engine.count("the fox") == 2
    *chunks, finish = engine.stream(
        Prompt("User: the fox\n\n", ()), Sampling(temperature=0, max_tokens=20)
    )
    assert isinstance(finish, Finish) and finish.prompt_tokens == 4
    assert "".join(chunk.text for chunk in chunks if isinstance(chunk, Chunk))
