"""What users do with a model of any family: chats of several turns, several answers at once,
repeated text, caches on disk. Each equals, to the bit, the same from a cold start.
"""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from support.compiled_models import needs_compiler
from support.family_engines import TinyModel
from support.family_lists import COMPILED, cases

from llmchat.engines import Chunk, Finish, Sampling
from llmchat.engines.transformers import TransformersEngine
from llmchat.engines.transformers.prepared_checkpoint import Preparation

pytestmark = [pytest.mark.slow, *needs_compiler, pytest.mark.usefixtures("one_thread")]
GREEDY = Sampling(temperature=0, max_tokens=12, ignore_eos=True)
CAUSAL = [name for name in COMPILED if not name.startswith("t5")]


def answer(engine: TransformersEngine, ids: list[int]) -> tuple[str, Finish]:
    *chunks, finish = engine.stream(engine.prompt_of(ids), GREEDY)
    assert isinstance(finish, Finish)
    return "".join(chunk.text for chunk in chunks if isinstance(chunk, Chunk)), finish


def cold(tiny: TinyModel, ids: list[int]) -> tuple[str, torch.Tensor]:
    """The answer and the first logits of an engine that has read nothing."""
    tiny.rounded.clear_cache()
    logits = tiny.rounded.logits(ids)
    tiny.rounded.clear_cache()
    return answer(tiny.rounded, ids)[0], logits


@cases(CAUSAL)
def test_later_turns_are_those_of_a_cold_start(tiny: TinyModel) -> None:
    """A next question, the same again (/regen), an earlier one otherwise (/undo), a fork."""
    engine, ids = tiny.rounded, tiny.ids(200)
    turns = [ids[:30], ids[:60], ids[:60], ids[:45] + ids[100:120], ids[:110], ids]
    expected = [cold(tiny, turn) for turn in turns]
    engine.clear_cache()
    for turn, (text, logits) in zip(turns, expected, strict=True):
        assert answer(engine, turn)[0] == text
        assert torch.equal(engine.logits(turn), logits)


@cases([name for name in CAUSAL if "longrope" not in name and "dynamic" not in name])
def test_the_next_turn_reads_only_what_is_new(tiny: TinyModel) -> None:
    engine, ids = tiny.rounded, tiny.ids(200)
    engine.clear_cache()
    answer(engine, ids[:60])
    _, finish = answer(engine, ids)
    assert finish.cached_tokens >= 59


@cases(CAUSAL)
def test_answers_at_once_are_those_alone(tiny: TinyModel) -> None:
    prompts = [tiny.ids(count, seed=count) for count in (5, 19, 30, 64)]
    alone = [cold(tiny, ids)[0] for ids in prompts]
    engine = tiny.open(weights="int8", slots=4)
    running = [engine.begin(engine.prompt_of(ids), GREEDY) for ids in prompts]
    texts = ["" for _ in prompts]
    while not all(one.done for one in running):
        going = [index for index, one in enumerate(running) if not one.done]
        events = engine.step([running[index] for index in going])
        for index, new in zip(going, events, strict=True):
            texts[index] += "".join(event.text for event in new if isinstance(event, Chunk))
    for one in running:
        one.close()
    assert texts == alone


@cases(CAUSAL)
def test_prompt_lookup_changes_no_token(tiny: TinyModel) -> None:
    ids = tiny.ids(12) * 4
    plain = tiny.open(weights="int8", drafts=False)
    tiny.rounded.clear_cache()
    sampling = Sampling(temperature=0, max_tokens=60, ignore_eos=True)
    texts = []
    for engine in (plain, tiny.rounded):
        events: list[Any] = list(engine.stream(engine.prompt_of(ids), sampling))
        texts.append("".join(event.text for event in events if isinstance(event, Chunk)))
    assert texts[0] == texts[1]


@cases(CAUSAL)
def test_a_cache_on_disk_goes_on_to_the_bit(tiny: TinyModel, tmp_path: Path) -> None:
    ids = tiny.ids(90)
    text, logits = cold(tiny, ids)
    tiny.rounded.clear_cache()
    answer(tiny.rounded, ids[:50])
    assert tiny.rounded.save_cache(tmp_path / "kv", "key") >= 50
    again = tiny.open(weights="int8")
    assert again.load_cache(tmp_path / "kv", "other key") == 0
    assert again.load_cache(tmp_path / "kv", "key") >= 50
    got, finish = answer(again, ids)
    assert got == text and finish.cached_tokens >= 49
    again.clear_cache()
    again.load_cache(tmp_path / "kv", "key")
    assert torch.equal(again.logits(ids), logits)


@cases(["gemma3n", "gemma4: experts"])
def test_a_prepared_copy_has_the_same_numbers(tiny: TinyModel, tmp_path: Path) -> None:
    """Of 16-bit files, as published ones are: the copy rounds nothing but its 8-bit matrices."""
    base, copy = tmp_path / "base", tmp_path / "copy"
    shutil.copytree(tiny.base, base)
    tensors = load_file(tiny.base / "model.safetensors")
    halves = {name: tensor.bfloat16() for name, tensor in tensors.items()}
    save_file(halves, base / "model.safetensors", {"format": "pt"})
    copy.mkdir()
    Preparation(base, ()).write(copy)
    ids, kernels = tiny.ids(90), {"weights": "int8", "device": "cpu", "kernels": tiny.kernels}
    cold, prepared = (
        TransformersEngine(base, (), prepared=folder, **kernels).logits(ids)
        for folder in (None, copy)
    )
    assert torch.equal(cold, prepared)
