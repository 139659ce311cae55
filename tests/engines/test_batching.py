"""Several answers in one pass, prefix caches, drafts and live adapters: each answer is what it
would have been alone.
"""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support.checkpoints import save_adapter, save_tiny, tiny_config
from transformers import AutoModelForCausalLM, GPTNeoXConfig

from llmchat.engines import Chunk, Finish, Sampling
from llmchat.engines.transformers import TransformersEngine
from llmchat.engines.transformers.engine import IDLE_CACHE_BYTES
from llmchat.engines.transformers.executor import SequenceInput
from llmchat.engines.transformers.generation import RunningAnswer
from llmchat.engines.transformers.prefill import SHARED_CHUNK
from llmchat.engines.transformers.prompt_lookup import PromptLookup
from llmchat.errors import ContextOverflow, Mismatch, UsageError
from llmchat.prompt import Prompt

pytestmark = pytest.mark.usefixtures("one_thread")
GREEDY = Sampling(temperature=0, max_tokens=24)
TEXTS = [
    "the quick brown fox",
    "jumps over",
    "the lazy dog, and the answer is here: " * 5,
    "question",
]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("base"))


def open_engine(base: Path, **options: Any) -> TransformersEngine:
    return TransformersEngine(base, weights="fp32", device="cpu", **options)


def alone(engine: TransformersEngine, text: str, sampling: Sampling = GREEDY) -> tuple[str, Finish]:
    *chunks, finish = engine.stream(Prompt(text, ()), sampling)
    assert isinstance(finish, Finish)
    return "".join(chunk.text for chunk in chunks if isinstance(chunk, Chunk)), finish


def run(engine: TransformersEngine, answers: list[RunningAnswer]) -> list[tuple[str, Finish]]:
    """All answers to their ends, together."""
    texts, ends = [""] * len(answers), [Finish("cancelled")] * len(answers)
    while running := [index for index, answer in enumerate(answers) if not answer.done]:
        for index, events in zip(
            running, engine.step([answers[index] for index in running]), strict=True
        ):
            for event in events:
                if isinstance(event, Chunk):
                    texts[index] += event.text
                else:
                    ends[index] = event
    return list(zip(texts, ends, strict=True))


@pytest.mark.parametrize("architecture", ["llama", "gpt-neox"])
def test_answers_together_are_those_of_each_alone(architecture: str, tmp_path: Path) -> None:
    family = {
        "vocab_size": 320, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2,
        "num_attention_heads": 4, "bos_token_id": 1, "eos_token_id": 2,
    }  # fmt: skip
    folder = save_tiny(
        tmp_path,
        tiny_config()
        if architecture == "llama"
        else GPTNeoXConfig(**family, max_position_embeddings=256),
    )
    sampled = Sampling(temperature=1.5, top_p=0.9, repetition_penalty=1.1, max_tokens=15, seed=3)
    wanted = [
        alone(open_engine(folder), text, sampling)
        for text, sampling in zip(TEXTS, [GREEDY, sampled, GREEDY, sampled], strict=True)
    ]
    engine = open_engine(folder, slots=4)
    answers = [
        engine.begin(Prompt(text, ()), sampling)
        for text, sampling in zip(TEXTS, [GREEDY, sampled, GREEDY, sampled], strict=True)
    ]
    got = run(engine, answers)
    assert [text for text, _ in got] == [text for text, _ in wanted]
    assert [(end.reason, end.reply_tokens) for _, end in got] == [
        (end.reason, end.reply_tokens) for _, end in wanted
    ]
    assert all(end.seed == 3 for _, end in (got[1], got[3]))


def test_answers_join_and_leave_between_passes(base: Path) -> None:
    wanted = [alone(open_engine(base), text)[0] for text in TEXTS]
    engine = open_engine(base, slots=3)
    first, second = (engine.begin(Prompt(text, ()), GREEDY) for text in TEXTS[:2])
    said = "".join(
        event.text
        for _ in range(5)
        for event in engine.step([first])[0]
        if isinstance(event, Chunk)
    )
    engine.step([first, second])
    second.close()
    third = engine.begin(Prompt(TEXTS[2], ()), GREEDY)
    rest = run(engine, [first, third])
    assert wanted[0].startswith(said) and wanted[0].endswith(rest[0][0]) and rest[1][0] == wanted[2]
    assert alone(engine, TEXTS[3])[0] == wanted[3]
    second.close()
    with pytest.raises(UsageError, match="more than 3 answers at once"):
        engine.step([engine.begin(Prompt(text, ()), GREEDY) for text in TEXTS])


def test_a_long_prompt_does_not_hold_up_the_others(
    base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("llmchat.engines.transformers.prefill.SHARED_CHUNK", 16)
    assert SHARED_CHUNK > 16
    engine = open_engine(base, slots=3)
    running = engine.begin(Prompt(TEXTS[0], ()), GREEDY)
    engine.step([running])
    long, short = (
        engine.begin(Prompt(TEXTS[2], ()), GREEDY),
        engine.begin(Prompt(TEXTS[1], ()), GREEDY),
    )
    assert long.prompt_tokens > 32
    produced, passes = running._produced, 0
    while long.reading:
        engine.step([running, long, short])
        passes += 1
    assert passes == math.ceil(long.prompt_tokens / 16) and running._produced == produced + passes
    assert not short._produced or long._produced, "first come, first served"


def test_each_conversation_keeps_its_cache_and_shares_its_beginning(base: Path) -> None:
    engine = open_engine(base, slots=2)
    system = "the lazy dog jumps over the quick brown fox. "
    shared = len(engine.encode(Prompt(system, ()))) - 1
    for text in ("question", "answer here"):
        _, end = alone(engine, system + text)
        assert end.cached_tokens >= (0 if text == "question" else shared)
    for text in ("question", "answer here"):
        _, end = alone(
            engine, system + text + " and the answer", Sampling(temperature=0, max_tokens=1)
        )
        assert end.cached_tokens >= len(engine.encode(Prompt(system + text, ()))) - 1, (
            "both are remembered"
        )
    third, end = alone(engine, "the brown dog", Sampling(temperature=0, max_tokens=4))
    assert (
        third == alone(open_engine(base), "the brown dog", Sampling(temperature=0, max_tokens=4))[0]
        and len(engine._slots._slots) == 2
    )


def test_texts_that_wait_are_forgotten_when_they_grow_too_large(base: Path) -> None:
    engine = open_engine(base, slots=4)
    per_token = 2 * 2 * 2 * 16 * 4  # K and V, layers, heads, head_dim, bytes of fp32
    assert engine._slots._most == IDLE_CACHE_BYTES // per_token
    engine._slots._most = 60
    for text in ("the quick brown fox", "jumps over the lazy dog", "question and answer"):
        alone(engine, text)
    lengths = [slot.cache.length for slot in engine._slots._slots]
    assert len(lengths) == 2 and sum(lengths) <= 60
    assert alone(engine, "question and answer here")[1].cached_tokens, "the latest is still known"


def test_an_overlong_prompt_is_refused_before_it_takes_a_slot(base: Path) -> None:
    engine = open_engine(base)
    with pytest.raises(ContextOverflow):
        engine.begin(Prompt("fox " * 400, ()), GREEDY)
    assert alone(engine, TEXTS[0])[1].reason


REPEATING = "the quick brown fox jumps over the lazy dog. " * 3


def drafting(base: Path, drafts: bool) -> TransformersEngine:
    """fp32 logits differ in the last digit between one row and many; among 320 tokens that decides
    nothing here.
    """
    engine = open_engine(base, drafts=drafts)
    engine._forward.exact = True
    return engine


def passes(engine: TransformersEngine, text: str, sampling: Sampling) -> tuple[str, Finish, int]:
    count, read = 0, engine._forward.run

    def counted(parts: Any) -> Any:
        nonlocal count
        count += 1
        return read(parts)

    engine._forward.run = counted  # type: ignore[method-assign]
    result = alone(engine, text, sampling)
    engine._forward.run = read  # type: ignore[method-assign]
    return *result, count


def test_drafts_change_no_token_and_save_passes(tmp_path: Path) -> None:
    # A random tied model says the same few tokens again and again, which is what drafts are for.
    looping = save_tiny(tmp_path, tiny_config(vocab_size=320, num_hidden_layers=1), seed=5)
    saved = 0
    for text in (REPEATING, *TEXTS):
        for sampling in (
            Sampling(temperature=0, max_tokens=60),
            Sampling(temperature=0.4, top_k=5, seed=11, max_tokens=60),
        ):
            plain = passes(drafting(looping, False), text, sampling)
            fast = passes(drafting(looping, True), text, sampling)
            assert fast[0] == plain[0] and fast[1].reply_tokens == plain[1].reply_tokens
            saved += plain[2] - fast[2]
    assert saved > 20


def test_drafts_do_not_change_the_distribution(base: Path) -> None:
    """Chi-square over the first three tokens of 400 answers; drafts come from a prompt that
    proposes what follows. The 99.9 % quantile bounds it.
    """
    text, counts = REPEATING, {}
    for drafts in (False, True):
        engine = drafting(base, drafts)
        seen: dict[str, int] = {}
        for seed in range(400):
            sampling = Sampling(
                temperature=1.0, top_k=4, seed=seed + 1000 * drafts, max_tokens=3, logprobs=1
            )
            chunks = engine.stream(Prompt(text, ()), sampling)
            last = str(
                [token.id for chunk in chunks if isinstance(chunk, Chunk) for token in chunk.tokens]
            )
            seen[last] = seen.get(last, 0) + 1
        counts[drafts] = seen
    keys = [
        key
        for key in counts[False] | counts[True]
        if counts[False].get(key, 0) + counts[True].get(key, 0) >= 10
    ]
    statistic = sum(
        (counts[False].get(key, 0) - counts[True].get(key, 0)) ** 2
        / (counts[False].get(key, 0) + counts[True].get(key, 0))
        for key in keys
    )
    freedom = len(keys) - 1
    assert freedom >= 2
    # Wilson and Hilferty's cube root for the quantile of chi-square.
    assert statistic < freedom * (1 - 2 / (9 * freedom) + 3.09 * math.sqrt(2 / (9 * freedom))) ** 3


def test_a_draft_is_as_long_as_it_is_worth() -> None:
    drafts = PromptLookup([1, 2, 3, 4, 5, 6, 1, 2, 3, 4])
    assert (
        drafts.propose(10) == [5, 6, 1] and drafts.propose(2) == [5, 6] and drafts.propose(0) == []
    )
    for _ in range(20):
        for token in (5, 6, 1, 2, 3, 4):
            drafts.feed(token)
    # What was right for so long may be drafted in a full pass as well.
    assert len(drafts.propose(20)) == 12 and len(drafts.propose(20, together=16)) > 4


def test_no_draft_while_it_would_be_wrong() -> None:
    """The same four tokens are followed by something new each time."""
    drafts, row = PromptLookup([1, 2, 3, 4, 5, 1, 2, 3, 4]), 0
    assert drafts.propose(10) and not drafts.propose(10, together=16)
    for row in range(100, 130):
        for token in (row, 1, 2, 3, 4):
            drafts.feed(token)
    assert drafts.propose(10) == []
    # They are compared all the same, and come back when they are right.
    for _ in range(5):
        for token in (row, 1, 2, 3, 4):
            drafts.feed(token)
    assert drafts.propose(10)[0] == row


@given(st.lists(st.integers(0, 3), max_size=60), st.integers(0, 8))
def test_a_draft_is_what_followed_the_same_tokens_before(ids: list[int], room: int) -> None:
    proposal = PromptLookup(ids).propose(room)
    assert len(proposal) <= room
    if proposal:
        size = 4 if any(ids[start : start + 4] == ids[-4:] for start in range(len(ids) - 4)) else 3
        starts = [
            start + size
            for start in range(len(ids) - size)
            if ids[start : start + size] == ids[-size:]
        ]
        assert proposal in [(ids[start:] * 12)[: len(proposal)] for start in starts]


LORA = {
    "r": 3,
    "use_rslora": True,
    "target_modules": ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"],
}


def test_live_merged_and_peft_agree(base: Path, tmp_path: Path) -> None:
    import peft

    adapter, ids = save_adapter(tmp_path, base, **LORA), [5, 9, 30, 31, 77]
    live = open_engine(base)
    plain = live.logits(ids)
    live.load_adapter("school", adapter)
    live.choose((("school", 1.0),))
    merged = TransformersEngine(base, [adapter], weights="fp32", device="cpu")
    model = peft.PeftModel.from_pretrained(
        AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32), adapter
    )
    with torch.inference_mode():
        theirs = model(torch.tensor([ids])).logits[0, -1]
    torch.testing.assert_close(live.logits(ids), merged.logits(ids), rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(live.logits(ids), theirs, rtol=1e-3, atol=1e-3)
    live.choose(())
    assert torch.equal(live.logits(ids), plain) and not torch.allclose(plain, theirs, atol=0.1)


def test_live_adapters_are_scaled_stacked_and_taken_out(base: Path, tmp_path: Path) -> None:
    first, second = (
        save_adapter(tmp_path / "a", base, seed=1, **LORA),
        save_adapter(tmp_path / "b", base, seed=2),
    )
    ids = [5, 9, 30, 31, 77]
    engine = open_engine(base)
    for name, folder in (("a", first), ("b", second)):
        engine.load_adapter(name, folder)
    engine.choose((("a", 0.5),))
    half = TransformersEngine(base, [first], weights="fp32", device="cpu", adapter_scale=0.5)
    torch.testing.assert_close(engine.logits(ids), half.logits(ids), rtol=1e-3, atol=1e-3)
    engine.choose((("a", 1.0), ("b", 1.0)))
    both = TransformersEngine(base, [first, second], weights="fp32", device="cpu")
    torch.testing.assert_close(engine.logits(ids), both.logits(ids), rtol=1e-3, atol=1e-3)
    both.load_adapter("b", second)
    both.choose((("b", -1.0),))
    merged = TransformersEngine(base, [first], weights="fp32", device="cpu")
    torch.testing.assert_close(both.logits(ids), merged.logits(ids), rtol=1e-3, atol=1e-3)
    with pytest.raises(UsageError, match="no adapter `c` is loaded"):
        engine.choose((("c", 1.0),))


def test_answers_with_different_adapters_go_together(base: Path, tmp_path: Path) -> None:
    adapter = save_adapter(tmp_path, base, **LORA)
    wanted = [
        alone(open_engine(base), TEXTS[0])[0],
        alone(TransformersEngine(base, [adapter], weights="fp32", device="cpu"), TEXTS[0])[0],
    ]
    assert wanted[0] != wanted[1]
    engine = open_engine(base, slots=3)
    engine.load_adapter("school", adapter)
    choices = [(), (("school", 1.0),), ()]
    got = run(
        engine, [engine.begin(Prompt(TEXTS[0], ()), GREEDY, adapters) for adapters in choices]
    )
    assert [text for text, _ in got] == [wanted[0], wanted[1], wanted[0]]


def test_an_adapter_that_cannot_be_live_says_so(base: Path, tmp_path: Path) -> None:
    engine = open_engine(base)
    with pytest.raises(Mismatch, match="cannot be applied live"):
        engine.load_adapter("dora", save_adapter(tmp_path / "dora", base, use_dora=True))
    other = save_tiny(tmp_path / "other", tiny_config(hidden_size=32))
    with pytest.raises(Mismatch, match="is for a base whose"):
        engine.load_adapter("other", save_adapter(tmp_path / "adapter", other))


def test_log_probabilities_are_those_of_the_model(base: Path) -> None:
    engine = open_engine(base)
    *chunks, _ = engine.stream(
        Prompt(TEXTS[0], ()), Sampling(temperature=0, max_tokens=12, logprobs=4)
    )
    tokens = [token for chunk in chunks if isinstance(chunk, Chunk) for token in chunk.tokens]
    text = b"".join(token.spelling for token in tokens).decode("utf-8", "replace")
    assert text == "".join(chunk.text for chunk in chunks if isinstance(chunk, Chunk))
    ids = engine.encode(Prompt(TEXTS[0], ()))
    scores = open_engine(base).score(ids + [token.id for token in tokens])[len(ids) - 1 :]
    torch.testing.assert_close(
        torch.tensor([token.logprob for token in tokens]), scores, rtol=1e-3, atol=1e-3
    )
    for token in tokens:
        assert len(token.rivals) == 3 and token.rivals[0][1] == pytest.approx(token.logprob), (
            "greedy takes the likeliest"
        )


def test_the_parts_of_a_pass_have_logits_of_their_own(base: Path) -> None:
    forward = open_engine(base)._forward
    one, two = forward.new_cache(), forward.new_cache()
    with torch.inference_mode():
        few, many = forward.run(
            [SequenceInput(one, [5, 6, 7]), SequenceInput(two, [8, 9], all_logits=True)]
        )
        again = forward.run([SequenceInput(forward.new_cache(), [8, 9], all_logits=True)])[0]
    assert few.shape == (1, 320) and many.shape == (2, 320) and one.length == 3 and two.length == 2
    torch.testing.assert_close(many, again, rtol=1e-4, atol=1e-4)
