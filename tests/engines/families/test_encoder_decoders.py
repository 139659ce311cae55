"""Models whose encoder reads a whole prompt before their decoder answers (T5)."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from support.family_engines import TinyModel, divergence
from support.family_lists import COMPILED, cases, compiler
from transformers.models.t5.modeling_t5 import T5Attention

from llmchat.engines import Chunk, Finish, Sampling
from llmchat.engines.checkpoint_files import read_json
from llmchat.engines.transformers import TransformersEngine
from llmchat.engines.transformers.compiled import CompiledEncoderDecoder
from llmchat.engines.transformers.executor import SequenceInput
from llmchat.engines.transformers.families import plan_of
from llmchat.engines.transformers.families.blocks import Attention
from llmchat.engines.transformers.families.distance import buckets_of
from llmchat.engines.transformers.weights import MemoryTensors
from llmchat.errors import Mismatch

pytestmark = pytest.mark.usefixtures("one_thread")
T5 = [name for name in COMPILED if name.startswith("t5")]
GREEDY = Sampling(temperature=0, max_tokens=12, ignore_eos=True)
SIZES = {
    "model_type": "t5", "vocab_size": 320, "d_model": 64, "d_kv": 16, "d_ff": 96, "num_layers": 2,
    "num_heads": 4,
}  # fmt: skip


def answer(engine: TransformersEngine, ids: list[int]) -> tuple[str, Finish]:
    *chunks, finish = engine.stream(engine.prompt_of(ids), GREEDY)
    assert isinstance(finish, Finish)
    return "".join(chunk.text for chunk in chunks if isinstance(chunk, Chunk)), finish


def at_once(engine: TransformersEngine, prompts: list[list[int]]) -> list[str]:
    """Answers to prompts in the same calls; each one begins after a step of the one before."""
    running: list[Any] = []
    texts = ["" for _ in prompts]
    while len(running) < len(prompts) or not all(one.done for one in running):
        if len(running) < len(prompts):
            running.append(engine.begin(engine.prompt_of(prompts[len(running)]), GREEDY))
        going = [index for index, one in enumerate(running) if not one.done]
        events = engine.step([running[index] for index in going])
        for index, new in zip(going, events, strict=True):
            texts[index] += "".join(event.text for event in new if isinstance(event, Chunk))
    return texts


def cold(engine: TransformersEngine, ids: list[int]) -> str:
    engine.clear_cache()
    return answer(engine, ids)[0]


@cases(["t5"])
def test_answers_at_once_are_those_alone(tiny: TinyModel) -> None:
    prompts = [tiny.ids(count, seed=count) for count in (5, 19, 1, 40)]
    for engine in (tiny.exact, tiny.rounded):
        alone = [cold(engine, ids) for ids in prompts]
        assert at_once(tiny.open(weights=engine._weights, slots=4), prompts) == alone


@compiler
@pytest.mark.slow
@cases(T5)
@pytest.mark.parametrize("threads", [1, 2])
def test_prompts_at_once_are_encoded_as_alone_to_the_bit(tiny: TinyModel, threads: int) -> None:
    """Prompts around the length of a span of keys and of the distances that have biases."""
    torch.set_num_threads(threads)
    forward = tiny.rounded._forward
    prompts = [tiny.ids(count, seed=count) for count in (1, 7, 8, 9, 100, 256, 257, 600)]
    alone, together = [], [SequenceInput(forward.new_cache(), ids) for ids in prompts]
    with torch.inference_mode():
        for ids in prompts:
            alone += forward.run([SequenceInput(forward.new_cache(), ids)])
        for got, expected in zip(forward.run(together), alone, strict=True):
            assert torch.equal(got, expected)
        # Answers go on beside a prompt that is read.
        more = SequenceInput(forward.new_cache(), tiny.ids(300))
        batch = [replace(one, ids=[5, 6, 7], all_logits=True) for one in together]
        got = forward.run([*batch[:4], more, *batch[4:]])
        del got[4]
        for index, ids in enumerate(prompts):
            cache = forward.new_cache()
            forward.run([SequenceInput(cache, ids)])
            parts = [forward.run([SequenceInput(cache, [token])])[0] for token in (5, 6, 7)]
            assert torch.equal(got[index], torch.cat(parts))


@compiler
@pytest.mark.slow
@cases(T5)
def test_long_prompts_and_answers_are_those_of_transformers(tiny: TinyModel) -> None:
    """Across spans of keys, and beyond the reach of biases by distance."""
    ids, said = tiny.ids(600), [0, *tiny.ids(300, seed=2)]
    with torch.inference_mode():
        expected = tiny.reference(
            input_ids=torch.tensor([ids]), decoder_input_ids=torch.tensor([said])
        ).logits[0]
    for engine in (tiny.exact, tiny.rounded):
        cache = engine._forward.new_cache()
        with torch.inference_mode():
            (first,) = engine._forward.run([SequenceInput(cache, ids)])
            (rest,) = engine._forward.run([SequenceInput(cache, said[1:], all_logits=True)])
        got = torch.cat([first, rest]).float()
        if engine is tiny.exact:
            torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-4)
        assert divergence(expected, got) <= 2e-3


@compiler
@cases(["t5"])
def test_a_prompt_of_invalid_numbers_gives_no_valid_logits(tiny: TinyModel) -> None:
    """A 16-bit embedding is not checked when it is opened. Other prompts in the pass are valid."""
    state = {name: tensor.clone() for name, tensor in tiny.reference.state_dict().items()}
    table = state["shared.weight"] = state["shared.weight"].bfloat16()
    table[300] = torch.inf
    kernels = tiny.rounded._forward._kernels  # type: ignore[attr-defined]
    config = read_json(tiny.base / "config.json")
    forward = CompiledEncoderDecoder(config, MemoryTensors(state), kernels)
    prompts = [[5, 6, 7], [5, 300, 7]]
    texts = [SequenceInput(forward.new_cache(), ids) for ids in prompts]
    with torch.inference_mode():
        (alone,) = forward.run([SequenceInput(forward.new_cache(), prompts[0])])
        good, bad = forward.run(texts)
        assert torch.equal(good, alone) and good.isfinite().all() and bad.isnan().all()
        good, bad = forward.run([replace(one, ids=[5, 6]) for one in texts])
        assert good.isfinite().all() and bad.isnan().all()


@compiler
@cases(["t5"])
def test_prompt_lookup_changes_no_token(tiny: TinyModel) -> None:
    """Few tokens that alternate, so that drafts are right and wrong."""
    few = {token: 9.0 for token in (40, 41, 42)}
    sampling = Sampling(temperature=1.0, max_tokens=80, seed=3, logit_bias=few)
    texts, lengths = [], []
    for engine in (tiny.open(drafts=False), tiny.open()):
        decode = engine._forward._decode  # type: ignore[attr-defined]

        def counted(sequences: list[SequenceInput], decode: Any = decode) -> Any:
            lengths.extend(len(sequence.ids) for sequence in sequences)
            return decode(sequences)

        engine._forward._decode = counted  # type: ignore[attr-defined]
        events: list[Any] = list(engine.stream(engine.prompt_of(tiny.ids(12)), sampling))
        texts.append("".join(event.text for event in events if isinstance(event, Chunk)))
    assert texts[0] == texts[1] and len(texts[0]) > 80
    drafts = lengths[80:]
    assert set(lengths[:80]) == {1} and max(drafts) > 1 and sum(drafts) > 80


@cases(["t5"])
def test_the_same_prompt_is_encoded_once(tiny: TinyModel) -> None:
    """Beside another one, and also if it is a single token."""
    engine = tiny.open(slots=2)
    for ids in (tiny.ids(30), tiny.ids(1)):
        text, first = answer(engine, ids)
        answer(engine, tiny.ids(20, seed=9))
        again, second = answer(engine, ids)
        assert again == text and first.cached_tokens == 0
        assert second.cached_tokens == len(ids) - 1
        assert answer(engine, [*ids, 7])[1].cached_tokens == 0


def test_the_buckets_of_distances_grow_with_their_logarithm() -> None:
    """Of 8 buckets up to a distance of 12 half hold one distance each; as in transformers."""
    one_sided = buckets_of(8, 12, both_sides=False).tolist()
    assert one_sided[12::-1] == [0, 1, 2, 3, 4, 4, 5, 6, 6, 6, 7, 7, 7]
    assert set(one_sided[13:]) == {0}
    both = buckets_of(8, 12, both_sides=True).tolist()
    assert both[12::-1] == [0, 1, 2, 2, 2, 3, 3, 3, 3, 3, 3, 3, 3]
    assert both[13:] == [bucket + 4 for bucket in both[11::-1]]
    theirs = T5Attention._relative_position_bucket
    for both_sides in (False, True):
        expected = theirs(torch.arange(-128, 129), both_sides, 32, 128)
        assert torch.equal(buckets_of(32, 128, both_sides=both_sides), expected)


def test_the_first_layer_has_the_biases_of_all_layers_of_t5() -> None:
    for kind, expected in (("t5", {0}), ("mt5", {0}), ("umt5", {0, 1})):
        plan = plan_of(SIZES | {"model_type": kind})
        assert plan and plan.encoder
        found = [block for block in plan.blocks() if isinstance(block, Attention)]
        names = {block.distance_bias.weight for block in found if block.distance_bias}
        wanted = {f"{side}.block.{n}." for side in ("encoder", "decoder") for n in expected}
        assert {name.partition("layer")[0] for name in names} == wanted


@pytest.mark.parametrize(
    ("changes", "scale"),
    [
        ({}, 0.125),
        ({"tie_word_embeddings": False}, 1.0),
        ({"tie_word_embeddings": True, "scale_decoder_outputs": False}, 1.0),
        ({"model_type": "mt5"}, 1.0),
        ({"model_type": "umt5"}, 0.125),
    ],
)
def test_a_tied_head_divides_what_it_reads(changes: dict[str, Any], scale: float) -> None:
    plan = plan_of(SIZES | changes)
    assert plan and plan.head.scale == scale


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"relative_attention_num_buckets": 3}, "relative_attention_num_buckets"),
        ({"relative_attention_max_distance": 16}, "relative_attention_num_buckets"),
        ({"decoder_start_token_id": 320}, "decoder_start_token_id"),
        ({"feed_forward_proj": 3}, "feed_forward_proj"),
    ],
)
def test_values_that_no_model_has_are_refused(changes: dict[str, Any], named: str) -> None:
    with pytest.raises(Mismatch, match=f"invalid `{named}`"):
        plan_of(SIZES | changes)


def test_variants_that_the_blocks_cannot_express_have_no_plan() -> None:
    for changes in (
        {"is_encoder_decoder": False},
        {"feed_forward_proj": "gated-mish"},
        {"relative_attention_max_distance": 2**20},
    ):
        assert plan_of(SIZES | changes) is None
    assert torch.equal(buckets_of(32, 128, both_sides=False)[:2], torch.tensor([31, 31]))
