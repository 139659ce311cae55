"""ChatGLM-6B: a prompt that is read in both directions, two counters of positions, its tokenizer,
and its 4-bit files. The other ChatGLM models are ordinary cases of support.tiny_families.
"""

import base64
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from support.checkpoints import sentencepiece_file
from support.family_engines import TinyModel, all_expected, all_logits, divergence
from support.family_lists import cases, compiler

from llmchat.conversation import Message
from llmchat.engines import Chunk, Finish, Sampling
from llmchat.engines.tokenizer import Tokenizer
from llmchat.engines.tokenizer.tiktoken_file import read_tiktoken
from llmchat.engines.transformers import TransformersEngine
from llmchat.engines.transformers.executor import SequenceInput
from llmchat.engines.transformers.families import plan_of
from llmchat.engines.transformers.quantised.checkpoint import QuantisedTensors
from llmchat.errors import IntegrityError, Mismatch
from llmchat.presets import get_format
from llmchat.prompt import Prompt
from llmchat.quantisation import declared

pytestmark = pytest.mark.usefixtures("one_thread")
# The token that opens an answer in the tiny checkpoints.
START = 1
GREEDY = Sampling(temperature=0, max_tokens=12, ignore_eos=True)


def text(tiny: TinyModel, context: int, answer: int, seed: int = 5) -> list[int]:
    ids = tiny.ids(context + answer, seed)
    return [*ids[:context], START, *ids[context:]]


def answer(engine: TransformersEngine, ids: list[int]) -> tuple[str, Finish]:
    *chunks, finish = engine.stream(engine.prompt_of(ids), GREEDY)
    assert isinstance(finish, Finish)
    return "".join(chunk.text for chunk in chunks if isinstance(chunk, Chunk)), finish


def cold(engine: TransformersEngine, ids: list[int]) -> str:
    engine.clear_cache()
    return answer(engine, ids)[0]


@compiler
@cases(["chatglm"])
def test_a_prompt_is_read_in_both_directions(tiny: TinyModel) -> None:
    """Around the rows that are attended to in one unit, and the spans of keys."""
    for context, said in ((0, 5), (1, 3), (7, 2), (8, 9), (40, 20), (255, 3), (300, 40)):
        ids = text(tiny, context, said)
        expected = all_expected(tiny.reference, ids)
        torch.testing.assert_close(all_logits(tiny.exact, ids), expected, rtol=1e-4, atol=1e-4)
        assert divergence(expected, all_logits(tiny.rounded, ids)) <= 2e-3
    changed = [*ids[:299], ids[0], *ids[300:]]
    assert not torch.equal(all_expected(tiny.reference, changed)[0], expected[0])


@compiler
@cases(["chatglm"])
@pytest.mark.parametrize("threads", [1, 2])
def test_an_answer_has_the_same_logits_to_the_bit_however_it_is_read(
    tiny: TinyModel, threads: int
) -> None:
    torch.set_num_threads(threads)
    forward = tiny.rounded._forward
    texts = [text(tiny, context, 12, context) for context in (1, 6, 30, 300)]
    alone = [all_logits(tiny.rounded, ids) for ids in texts]
    with torch.inference_mode():
        together = [SequenceInput(forward.new_cache(), ids, all_logits=True) for ids in texts]
        for got, expected in zip(forward.run(together), alone, strict=True):
            assert torch.equal(got, expected)
        for ids, expected in zip(texts, alone, strict=True):
            cache, read = forward.new_cache(), len(ids) - 12
            parts = [SequenceInput(cache, ids[:read], all_logits=True)]
            parts += [SequenceInput(cache, [token], all_logits=True) for token in ids[read:]]
            assert torch.equal(torch.cat([forward.run([one])[0] for one in parts]), expected)


@compiler
@cases(["chatglm"])
def test_only_the_same_prompt_is_not_read_again(tiny: TinyModel) -> None:
    """A longer prompt makes the keys of its beginning different."""
    for engine in (tiny.exact, tiny.rounded):
        ids = text(tiny, 30, 0)
        said, first = answer(engine, ids)
        again, second = answer(engine, ids)
        assert again == said == cold(engine, ids)
        assert (first.cached_tokens, second.cached_tokens) == (0, 30)
        longer = [*ids[:-1], *tiny.ids(8, 9), START]
        expected = cold(engine, longer)
        answer(engine, ids)
        shown, third = answer(engine, longer)
        assert shown == expected and third.cached_tokens == 0


@compiler
@cases(["chatglm"])
def test_an_answer_goes_on_after_what_is_read_of_it(tiny: TinyModel, tmp_path: Path) -> None:
    """Also in another slot, and from a cache on disk."""
    begun = text(tiny, 30, 6)
    engine = tiny.open(weights="int8", slots=2)
    expected = cold(engine, begun)
    answer(engine, begun[:33])
    assert engine.save_cache(tmp_path / "cache", "key") >= 33
    shown, finish = answer(engine, begun)
    assert shown == expected and finish.cached_tokens >= 33
    other = [*begun[:34], *tiny.ids(40, 3)]
    plain = cold(tiny.open(weights="int8"), other)
    copied, finish = answer(engine, other)
    assert copied == plain and finish.cached_tokens >= 31
    loaded = tiny.open(weights="int8")
    assert loaded.load_cache(tmp_path / "cache", "key") >= 33
    shown, finish = answer(loaded, begun)
    assert shown == expected and finish.cached_tokens >= 33


@compiler
@cases(["chatglm"])
def test_answers_at_once_are_those_alone(tiny: TinyModel) -> None:
    prompts = [text(tiny, count, 0, count) for count in (5, 19, 1, 40)]
    for engine in (tiny.exact, tiny.rounded):
        alone = [cold(engine, ids) for ids in prompts]
        shared = tiny.open(weights=engine._weights, slots=4)
        running = [shared.begin(shared.prompt_of(ids), GREEDY) for ids in prompts]
        texts = ["" for _ in prompts]
        while not all(one.done for one in running):
            going = [index for index, one in enumerate(running) if not one.done]
            events = shared.step([running[index] for index in going])
            for index, new in zip(going, events, strict=True):
                texts[index] += "".join(event.text for event in new if isinstance(event, Chunk))
        assert texts == alone


@compiler
@cases(["chatglm"])
def test_prompt_lookup_changes_no_token(tiny: TinyModel) -> None:
    few = {token: 9.0 for token in (40, 41, 42)}
    sampling = Sampling(temperature=1.0, max_tokens=60, seed=3, logit_bias=few)
    shown = []
    for drafts in (False, True):
        engine = tiny.open(weights="int8", drafts=drafts)
        events = engine.stream(engine.prompt_of(text(tiny, 12, 0)), sampling)
        shown.append("".join(event.text for event in events if isinstance(event, Chunk)))
    assert shown[0] == shown[1]


# Files in 4 and 8 bits


def quantised(folder: Path, target: Path, bits: int) -> dict[str, torch.Tensor]:
    """Write the checkpoint with quantised linears, by the published formula; returns the tensors
    that its numbers stand for.
    """
    target.mkdir()
    state = load_file(folder / "model.safetensors")
    found, most = dict(state), 2 ** (bits - 1) - 1
    for name in [name for name in state if ".layers." in name and state[name].dim() == 2]:
        scale = (state[name].abs().amax(1) / most).half()
        codes = (state[name] / scale.float()[:, None]).round().to(torch.int8)
        found[name] = codes * scale.float()[:, None]
        if bits == 4:
            codes = (codes[:, ::2] << 4) | (codes[:, 1::2] & 15)
        state[name] = codes
        state[f"{name.removesuffix('.weight')}.weight_scale"] = scale
    save_file(state, target / "model.safetensors")
    config = json.loads((folder / "config.json").read_text()) | {"quantization_bit": bits}
    (target / "config.json").write_text(json.dumps(config))
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (target / name).write_bytes((folder / name).read_bytes())
    return found


@compiler
@cases(["chatglm"])
@pytest.mark.parametrize("bits", [4, 8])
def test_quantised_files_keep_their_numbers(tiny: TinyModel, bits: int, tmp_path: Path) -> None:
    expected = quantised(tiny.base, tmp_path / "quantised", bits)
    config = json.loads((tmp_path / "quantised" / "config.json").read_text())
    tensors = QuantisedTensors([tmp_path / "quantised" / "model.safetensors"], config)
    assert tensors.shapes == {name: tuple(one.shape) for name, one in expected.items()}
    for name, wanted in expected.items():
        assert torch.equal(tensors.get(name).float(), wanted)
        if grouped := tensors.grouped(name):
            assert torch.equal(grouped.dequantised(), wanted)
            assert tensors.stored_size(name) == wanted.numel() * bits // 8 + 2 * len(wanted)
            codes, scb = tensors.int8(name) or pytest.fail()
            torch.testing.assert_close(codes * (scb / 127)[:, None], wanted, rtol=1e-6, atol=0)
    reference = type(tiny.reference)(tiny.reference.config)
    reference.load_state_dict(expected)
    ids = text(tiny, 30, 10)
    wanted = all_expected(reference.eval(), ids)
    engine = TransformersEngine(tmp_path / "quantised", weights="fp32", device="cpu")
    torch.testing.assert_close(all_logits(engine, ids), wanted, rtol=1e-4, atol=1e-4)
    engine = TransformersEngine(tmp_path / "quantised", device="cpu", kernels=tiny.kernels)
    assert divergence(wanted, all_logits(engine, ids)) <= 2e-3


@pytest.mark.parametrize("bits", [3, "4", True, 1.5])
def test_another_number_of_bits_is_refused(bits: Any) -> None:
    with pytest.raises(IntegrityError, match="invalid `quantization_bit`"):
        declared({"model_type": "chatglm", "quantization_bit": bits})


def test_scales_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    good = {"a.weight": torch.ones(2, 2, dtype=torch.int8), "a.weight_scale": torch.ones(2)}
    for changes, named in (
        ({"a.weight": torch.ones(2, 2)}, "2 x 2 of F32 instead of a matrix of I8"),
        ({"a.weight_scale": torch.ones(3)}, "3 of F32 instead of 2"),
        ({"a.weight_scale": torch.ones(2, dtype=torch.int32)}, "2 of I32 instead of a matrix"),
        ({"a.weight_scale": torch.tensor([1.0, torch.nan])}, "NaN or infinity"),
        ({"b.weight_scale": torch.ones(2)}, "has no `weight` in the files"),
    ):
        save_file(good | changes, tmp_path / "model.safetensors")
        with pytest.raises(IntegrityError, match=named):
            config = {"model_type": "chatglm", "quantization_bit": 4}
            QuantisedTensors([tmp_path / "model.safetensors"], config).get("a.weight")


# The tokenizer

WORDS = ("▁", "▁a", "▁b", "a", "b", "你", "好", "你好", "▁你好", "[", "R", "]", "▁1", "0", "1", ":")
# Pieces before the words: <unk>, <s>, </s>, <pad>, <n>. The newer file has all special tokens.
FIRST = [("<unk>", 0.0, 2), ("<s>", 0.0, 3), ("</s>", 0.0, 3), ("<pad>", 0.0, 3), ("<n>", 0.0, 4)]
SPECIALS = [
    (name, 0.0, 3)
    for name in (
        "[MASK]",
        "[gMASK]",
        "[sMASK]",
        "<unused_0>",
        "<sop>",
        "<eop>",
        "<ENC>",
        "<dBLOCK>",
    )
]
BLANKS = [("<|tab|>", 0.0, 4), *((f"<|blank_{count}|>", 0.0, 4) for count in range(2, 81))]
BYTES = [(f"<0x{byte:02X}>", 0.0, 6) for byte in range(256)]
OLD = FIRST + [(word, -float(len(WORDS) - rank) / len(word), 1) for rank, word in enumerate(WORDS)]
NEW = OLD + SPECIALS + BLANKS + BYTES
GMASK, SOP = len(OLD) + 1, len(OLD) + 4


def ice(folder: Path, pieces: Any, offset: int, bpe: bool = False) -> Tokenizer:
    folder.mkdir(exist_ok=True)
    config = {
        "model_type": "chatglm",
        "bos_token_id": offset + SOP,
        "eos_token_id": offset + SOP + 1,
    }
    (folder / "config.json").write_text(json.dumps(config))
    settings = {"bos_token": "<sop>", "eos_token": "<eop>", "num_image_tokens": offset}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    data = sentencepiece_file(pieces, bpe=bpe, single_spaces=True, bytes_too=pieces is NEW)
    (folder / "ice_text.model").write_bytes(data)
    return Tokenizer(folder)


def pieces_of(tokenizer: Tokenizer, text: str) -> list[str]:
    return [tokenizer.name_of(number) or "" for number in tokenizer.ids(text)]


@pytest.mark.parametrize("bpe", [False, True])
@pytest.mark.parametrize(("pieces", "offset"), [(OLD, 20_000), (NEW, 0)])
def test_the_tokenizer_of_chatglm(tmp_path: Path, pieces: Any, offset: int, bpe: bool) -> None:
    """Both vocabularies: image tokens come first in the older one, whose code adds the special
    tokens. [gMASK] and <sop> follow a prompt.
    """
    tokenizer = ice(tmp_path, pieces, offset, bpe)
    ids = tokenizer.encode(Prompt("你好", ()))
    assert ids[-2:] == [offset + GMASK, offset + SOP]
    assert ids[:-2] == [offset + number for number, one in enumerate(OLD) if one[0] == "▁你好"]
    assert tokenizer.end_ids == {offset + SOP + 1}
    assert pieces_of(tokenizer, "\n a\tb") == ["▁", "<n>", "▁a", "<|tab|>", "b"]
    assert pieces_of(tokenizer, f"a{' ' * 5}b") == ["▁a", "<|blank_5|>", "b"]
    assert pieces_of(tokenizer, f"a{' ' * 83}b") == ["▁a", "<|blank_80|>", "<|blank_3|>", "b"]
    assert pieces_of(tokenizer, "é")[1:] == ["<0xC3>", "<0xA9>"]


@pytest.mark.parametrize(("pieces", "offset"), [(OLD, 20_000), (NEW, 0)])
def test_chatglm_tokens_make_the_text(tmp_path: Path, pieces: Any, offset: int) -> None:
    tokenizer = ice(tmp_path, pieces, offset)
    for text in ("你好", "a b\n  a\t\té好 b", "\n\n1", "b" + " " * 90 + "日"):
        decode = tokenizer.decoder()
        assert "".join(map(decode, tokenizer.ids(text))) == text
        assert tokenizer.spelt(tokenizer.ids(text)).removeprefix(" ") == text
    assert tokenizer.decoder()(17) == ("" if offset else "1"), "the first ids are of images"
    spellings = tokenizer.spellings(offset + len(NEW))
    assert spellings[offset + 4] == b"\n" and spellings[:offset] == [b""] * offset


def test_a_mark_in_a_message_is_text(tmp_path: Path) -> None:
    tokenizer = ice(tmp_path, NEW, 0)
    message = "a<sop>b[gMASK]<0x5A><unk>\U0010fffe<eop>"
    ids = tokenizer.encode(Prompt(message, (), quoted=((0, len(message)),)))
    assert ids.count(SOP) == ids.count(GMASK) == 1 and ids[-2:] == [GMASK, SOP]
    names = {tokenizer.name_of(number) for number in ids}
    assert not names & {"<0x5A>", "<unk>", "<eop>"}


def test_an_answer_that_was_begun_follows_the_marks(tmp_path: Path) -> None:
    tokenizer, form = ice(tmp_path, NEW, 0), get_format("chatglm")
    prompt = form.extend([Message("user", "a b"), Message("assistant", "你好")])
    assert prompt.text == "a b你好"
    names = [tokenizer.name_of(number) for number in tokenizer.encode(prompt)]
    assert names == ["▁a", "▁b", "[gMASK]", "<sop>", "▁你好"]


def test_a_file_with_ids_that_cannot_be_is_refused(tmp_path: Path) -> None:
    with pytest.raises(IntegrityError, match="<sop> is piece"):
        ice(tmp_path, NEW, 30_000)


def test_sentencepiece_itself_gives_the_same_pieces(tmp_path: Path) -> None:
    """The newer file, which needs nothing of the published code but the words for white space."""
    sentencepiece = pytest.importorskip("sentencepiece")
    tokenizer = ice(tmp_path, NEW, 0)
    peer = sentencepiece.SentencePieceProcessor(model_file=str(tmp_path / "ice_text.model"))
    for text in ("你好", "a b a", "\na", "a \n b", " a  b ", "[R 1]\n你好:1\na:", "éa日", "\t\ta"):
        written = text.replace("\n", "<n>").replace("\t", "<|tab|>").replace("  ", "<|blank_2|>")
        assert tokenizer.ids(text) == peer.encode(written), text


def test_later_models_have_the_marks_in_front(tmp_path: Path) -> None:
    """Special tokens of a sentencepiece file that names none."""
    config = {"model_type": "chatglm", "padded_vocab_size": 600}
    (tmp_path / "config.json").write_text(json.dumps(config))
    pieces = [*FIRST[:3], *BYTES, *((word, -float(rank), 1) for rank, word in enumerate(WORDS))]
    (tmp_path / "tokenizer.model").write_bytes(sentencepiece_file(pieces))
    tokenizer, size = Tokenizer(tmp_path), len(pieces)
    assert tokenizer.encode(Prompt("a", ()))[:2] == [size + 1, size + 3]
    form = get_format("chatglm3")
    ids = tokenizer.encode(form.render([Message("user", "a")]))
    names = [tokenizer.name_of(number) for number in ids]
    assert names == ["[gMASK]", "<sop>", "<|user|>", "▁", "<0x0A>", "▁a", "<|assistant|>"]


def ranks_file(folder: Path, tokens: list[bytes]) -> Path:
    lines = [f"{base64.b64encode(token).decode()} {rank}" for rank, token in enumerate(tokens)]
    (folder / "tokenizer.model").write_text("\n".join(lines) + "\n")
    return folder / "tokenizer.model"


def test_the_file_of_glm4_has_ranks(tmp_path: Path) -> None:
    """Its special tokens are in tokenizer_config.json."""
    tokens = [bytes([byte]) for byte in range(256)] + [
        b"ab",
        b" ab",
        b"abc",
        "你".encode()[:2],
        "你".encode(),
    ]
    ranks_file(tmp_path, tokens)
    names = ("<|endoftext|>", "[MASK]", "[gMASK]", "[sMASK]", "<sop>", "<eop>", "<|user|>")
    added = {str(261 + index): {"content": name} for index, name in enumerate(names)}
    settings = {"added_tokens_decoder": added, "eos_token": "<|endoftext|>"}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
    config = {"model_type": "chatglm", "padded_vocab_size": 300, "eos_token_id": [261, 267]}
    (tmp_path / "config.json").write_text(json.dumps(config))
    tokenizer = Tokenizer(tmp_path)
    assert tokenizer.ids("ab abc") == [256, 257, 99], "as merges in the order of ranks"
    assert tokenizer.ids("abc") == [258] and tokenizer.ids("你好")[0] == 260
    assert tokenizer.encode(Prompt("<|user|>abc", ())) == [263, 265, 267, 258]
    decode = tokenizer.decoder()
    assert "".join(map(decode, tokenizer.ids("ab 你好"))) == "ab 你好"
    assert tokenizer.end_ids == {261, 267}


@pytest.mark.parametrize("text", ["YQ== 0\nYg== 2\n", "YQ== 0\nYg==\n", "YQ== 0\n! 1\n"])
def test_ranks_that_are_none_are_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "tokenizer.model").write_text(text)
    with pytest.raises(IntegrityError, match="is not a tokenizer of ranks"):
        read_tiktoken(tmp_path / "tokenizer.model", {})


# Formats and configs


def test_the_first_question_is_bare() -> None:
    form = get_format("chatglm")
    first = [Message("user", "U1")]
    later = [*first, Message("assistant", "A1"), Message("user", "U2")]
    assert form.render(first).text == "U1"
    assert form.render(later).text == "[Round 0]\n问：U1\n答：A1\n[Round 1]\n问：U2\n答："
    assert form.render([Message("system", "S"), *first]).text == "S\n\nU1"
    second = get_format("chatglm2")
    assert second.render(first).text == "[gMASK]<sop>[Round 1]\n\n问：U1\n\n答："
    assert second.render(later).text == (
        "[gMASK]<sop>[Round 1]\n\n问：U1\n\n答：A1\n\n[Round 2]\n\n问：U2\n\n答："
    )


SIZES = {
    "model_type": "chatglm", "vocab_size": 320, "hidden_size": 64, "num_layers": 2,
    "num_attention_heads": 4, "bos_token_id": 1, "inner_hidden_size": 96,
}  # fmt: skip


def test_configs_of_chatglm() -> None:
    plan = plan_of(SIZES)
    assert plan and plan.answer_start == 1 and len(plan.layers) == 2
    assert plan_of(SIZES | {"position_encoding_2d": False}) is None
    assert plan_of(SIZES | {"pre_seq_len": 8}) is None, "a prefix that was tuned"
    with pytest.raises(Mismatch, match="invalid `bos_token_id`"):
        plan_of(SIZES | {"bos_token_id": 320})
    with pytest.raises(Mismatch, match="3 does not divide 4"):
        plan_of(
            SIZES
            | {"padded_vocab_size": 320, "ffn_hidden_size": 96, "multi_query_attention": True,
                "multi_query_group_num": 3}
        )  # fmt: skip


def test_half_of_a_head_counts_the_context_and_half_the_answer() -> None:
    plan = plan_of(SIZES)
    assert plan
    first, second = list(plan.rotaries())[:2]
    assert (first.counts, first.first) == ("context", 0)
    assert (second.counts, second.first) == ("answer", 8)
    assert replace(first, counts="answer", first=8).frequencies is second.frequencies
    exact = 1 / 10000 ** (torch.arange(0, 8, 2) / 8)
    assert torch.equal(first.frequencies, exact.half().float()), "as the published code has them"
