"""Tokenizers of GGUF files that are neither GPT-2's nor Llama's: those of Gemma 4, T5 and RWKV.

References: the tokenizers library, with which a vocabulary is trained; transformers' reader of GGUF
files, where it has one; and RWKV's own vocabulary file.
"""

import ast
import json
from pathlib import Path
from typing import Any

import pytest
from support.checkpoints import world_vocabulary
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from llmchat.engines.tokenizer import rwkv_world
from llmchat.engines.tokenizer.gguf import tokenizer_of
from llmchat.engines.tokenizer.rwkv_world import WorldVocabulary
from llmchat.hub.gguf_folder import _write_own_tokenizer

SPACE = "▁"
LEARNED = (
    "the quick brown fox jumps over the lazy dog",
    "The answer is 42, and the question is not known.\n\n  def f(a):\n\treturn a",
    "Ünïcödé and naïve café, 日本語 日本 на русском",
)
TEXTS = (
    *LEARNED,
    "",
    " ",
    "   leading, trailing   ",
    "the  quick   fox\n\n\njumps\tover",
    "😀 한국어 العربية \u0000 \u200b e\u0301",
    "'s't're 100000 1,000 ---===*** <<>> {{}} a1b2c3 HTTPServer.",
)
BYTES = [f"<0x{byte:02X}>" for byte in range(256)]
# llama.cpp's kinds of tokens.
NORMAL, UNKNOWN, CONTROL, WRITTEN, UNUSED, BYTE = range(1, 7)
Facts = dict[str, Any]


def ggml(**facts: Any) -> Facts:
    return {f"tokenizer.ggml.{name}": value for name, value in facts.items()}


def ids(tokenizer: Tokenizer, text: str) -> list[int]:
    return list(tokenizer.encode(text, add_special_tokens=False).ids)


def by_transformers(architecture: str, facts: Facts) -> Tokenizer:
    """As transformers reads the header."""
    reader = pytest.importorskip("transformers.integrations.gguf.gguf_tokenizer_mapping")
    own = {name.removeprefix("tokenizer.ggml."): value for name, value in facts.items()}
    facts = own | {"tokenizer_type": own["model"]}
    made: Tokenizer = reader.convert_gguf_tokenizer(architecture, facts)[0]
    return made


@pytest.fixture(scope="module")
def gemma() -> tuple[Tokenizer, Facts]:
    """Byte pairs with merges and bytes for what no piece spells, trained here, and its facts."""
    trained = Tokenizer(models.BPE())
    trained.normalizer = normalizers.Replace(" ", SPACE)
    trained.train_from_iterator(LEARNED, trainers.BpeTrainer(vocab_size=300, show_progress=False))
    saved = json.loads(trained.to_str())["model"]
    marks = ["<pad>", "<eos>", "<bos>", "<unk>", "<|turn>", "<turn|>"]
    learned = sorted(saved["vocab"], key=saved["vocab"].get)
    tokens = [*marks, "<table>", *BYTES, *learned]
    pairs = [tuple(pair) for pair in saved["merges"]]
    numbers = {token: number for number, token in enumerate(tokens)}
    reference = Tokenizer(
        models.BPE(numbers, pairs, unk_token="<unk>", fuse_unk=True, byte_fallback=True)
    )
    reference.normalizer = normalizers.Replace(" ", SPACE)
    reference.add_special_tokens(marks)
    reference.add_tokens(["<table>"])
    kinds = [CONTROL] * 3 + [UNKNOWN] + [CONTROL] * 2 + [WRITTEN]
    kinds += [BYTE] * 256 + [NORMAL] * len(learned)
    facts = ggml(
        model="gemma4", tokens=tokens, token_type=kinds, scores=[0.0] * len(tokens),
        merges=[" ".join(pair) for pair in pairs], bos_token_id=2, eos_token_id=1,
    )  # fmt: skip
    return reference, facts


@pytest.mark.parametrize("text", [*TEXTS, "<|turn>user\nthe fox<turn|>\n<table> a <unk>"])
def test_gemma_4_has_byte_pairs_with_merges(gemma: tuple[Tokenizer, Facts], text: str) -> None:
    reference, facts = gemma
    found = tokenizer_of(facts)
    assert found is not None
    assert ids(found, text) == ids(reference, text) == ids(by_transformers("gemma4", facts), text)
    if "<" not in text:
        assert found.decode(ids(found, text), skip_special_tokens=False) == text


def test_a_text_for_gemma_4_is_opened_by_its_start_token(gemma: tuple[Tokenizer, Facts]) -> None:
    found = tokenizer_of(gemma[1])
    assert found is not None and found.encode("the").ids == [2, *ids(found, "the")]
    closed = tokenizer_of(gemma[1] | ggml(add_bos_token=False))
    assert closed is not None and closed.encode("the").ids == ids(found, "the")


@pytest.mark.parametrize("merges", [None, "x", 5])
def test_gemma_4_without_merges_is_left_to_others(
    gemma: tuple[Tokenizer, Facts], merges: Any
) -> None:
    assert tokenizer_of(gemma[1] | ggml(merges=merges)) is None


@pytest.fixture(scope="module")
def t5() -> tuple[Tokenizer, Facts]:
    """Unigrams, trained here. Files of T5 call its sentinels paddings."""
    trained = Tokenizer(models.Unigram())
    trained.pre_tokenizer = pre_tokenizers.Metaspace(SPACE, "always")
    trainer = trainers.UnigramTrainer(
        vocab_size=120, special_tokens=["<pad>", "</s>", "<unk>"], unk_token="<unk>",
        show_progress=False,
    )  # fmt: skip
    trained.train_from_iterator(LEARNED, trainer)
    pieces = [tuple(piece) for piece in json.loads(trained.to_str())["model"]["vocab"]]
    count = len(pieces)
    tokens = [token for token, _ in pieces] + [f"[PAD{count + at}]" for at in range(128)]
    scores = [score for _, score in pieces] + [-10_000.0] * 128
    kinds = [CONTROL, CONTROL, UNKNOWN] + [NORMAL] * (count - 3) + [UNUSED] * 128
    facts = ggml(
        model="t5", tokens=tokens, scores=scores, token_type=kinds, eos_token_id=1,
        padding_token_id=0, add_space_prefix=True, remove_extra_whitespaces=True,
    )  # fmt: skip
    reference = Tokenizer(models.Unigram(pieces, unk_id=2))
    reference.normalizer = normalizers.Sequence(
        [normalizers.Strip(), normalizers.Replace(Regex(" {2,}"), " ")]
    )
    reference.pre_tokenizer = pre_tokenizers.Metaspace(SPACE, "always")
    reference.decoder = decoders.Metaspace(SPACE, "always")
    reference.add_special_tokens(["<pad>", "</s>", "<unk>"])
    return reference, facts


@pytest.mark.parametrize("text", [*TEXTS, "the fox</s>"])
def test_t5_has_unigrams(t5: tuple[Tokenizer, Facts], text: str) -> None:
    reference, facts = t5
    found = tokenizer_of(facts)
    assert found is not None and ids(found, text) == ids(reference, text)
    # Its end token closes a text.
    assert found.encode(text).ids == [*ids(found, text), 1]


@pytest.mark.parametrize("text", [LEARNED[0], "the fox <extra_id_0> over <extra_id_99> dog"])
def test_sentinels_of_t5_have_the_places_that_transformers_gives_them(
    t5: tuple[Tokenizer, Facts], text: str
) -> None:
    found, theirs = tokenizer_of(t5[1]), by_transformers("t5", t5[1])
    assert found is not None and ids(found, text) == ids(theirs, text)
    for number in (0, 50, 99, 100):
        name = f"<extra_id_{number}>"
        assert found.token_to_id(name) == theirs.token_to_id(name)


@pytest.mark.parametrize("scores", [None, [0.0], "x"])
def test_t5_without_scores_is_left_to_others(t5: tuple[Tokenizer, Facts], scores: Any) -> None:
    assert tokenizer_of(t5[1] | ggml(scores=scores)) is None


WORLD = world_vocabulary(
    "\n\n", " the", "the", " fox", "日本", "'quoted'", "\"both'", "a\\b", "\t\t"
)


def test_rwkv_has_the_vocabulary_of_its_own_file(tmp_path: Path) -> None:
    """Spelled as llama.cpp's converter spells it: repr of the bytes, with paddings behind."""
    original, made = tmp_path / "original", tmp_path / "made"
    for folder in (original, made):
        folder.mkdir()
    (original / rwkv_world.FILE).write_text(WORLD, "utf-8")
    tokens, kinds = ["<s>"], [CONTROL]
    for line in WORLD.splitlines():
        value = ast.literal_eval(line[line.index(" ") : line.rindex(" ")].strip())
        data = value.encode() if isinstance(value, str) else value
        tokens.append(repr(data)[2:-1])
        kinds.append(NORMAL)
    tokens += [f"[PAD{number}]" for number in range(8)]
    kinds += [UNUSED] * 8
    facts = ggml(model="rwkv", tokens=tokens, token_type=kinds, eos_token_id=0)
    _write_own_tokenizer(tmp_path / "a.gguf", facts, made)
    theirs, ours = (WorldVocabulary(folder / rwkv_world.FILE) for folder in (original, made))
    count = len(tokens)
    assert ours.spellings(count) == theirs.spellings(count)
    for text in (*TEXTS, "the 'quoted' \"both' a\\b\t\t日本語"):
        assert ours.ids(text) == theirs.ids(text)
