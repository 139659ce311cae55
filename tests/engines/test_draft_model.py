"""A small model that drafts for a larger one changes no token, and stops where it does not pay."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from support.checkpoints import save_tiny, tiny_config
from support.compiled_models import needs_compiler
from transformers import RwkvConfig

from llmchat.engines import Chunk, Finish, Sampling
from llmchat.engines.transformers import TransformersEngine
from llmchat.engines.transformers.draft_model import Average, Chances, DraftModel, Pace
from llmchat.engines.transformers.executor import SequenceInput
from llmchat.errors import Mismatch
from llmchat.prompt import Prompt
from llmchat.structure import Structure

pytestmark = [*needs_compiler, pytest.mark.usefixtures("one_thread")]
GREEDY = Sampling(temperature=0, max_tokens=60, ignore_eos=True)
DRAWN = Sampling(temperature=0.9, top_p=0.9, seed=7, max_tokens=60, ignore_eos=True)
PROMPTS = ["the quick brown fox", "question and answer " * 9, "a"]


class Cheap(Pace):
    """As if drafts took next to no time: random models are sure of nothing."""

    cost = 0.05
    row = 0.05
    rate = 0.02
    pauses = False


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A large model, a small one of the same vocabulary, and one that differs in a token."""
    found = {name: tmp_path_factory.mktemp(name) for name in ("large", "small", "other")}
    save_tiny(found["large"], tiny_config(num_hidden_layers=3))
    save_tiny(found["small"], tiny_config(num_hidden_layers=1), seed=1)
    save_tiny(found["other"], tiny_config(num_hidden_layers=1), seed=1)
    file = found["other"] / "tokenizer.json"
    table = json.loads(file.read_text())
    words = table["model"]["vocab"]
    words["a"], words["b"] = words["b"], words["a"]
    file.write_text(json.dumps(table))
    return found


@pytest.fixture
def opened(folders: dict[str, Path], kernel_folder: Path) -> Iterator[Any]:
    def opened(name: str, draft: str = "", **options: Any) -> TransformersEngine:
        small = opened(draft) if draft else None
        options = {"device": "cpu", "kernels": kernel_folder, "draft": small} | options
        return TransformersEngine(folders[name], **options)

    yield opened


def drafting(engine: TransformersEngine, pace: Pace | None = None) -> DraftModel:
    model = engine.draft
    assert model
    model.pace = pace or model.pace
    return model


def answer(engine: TransformersEngine, text: str, sampling: Sampling) -> tuple[str, int]:
    """The answer, and the calls of the model that made it."""
    forward, calls = engine._forward, 0
    run = forward.run

    def counted(sequences: list[SequenceInput]) -> Any:
        nonlocal calls
        calls += 1
        return run(sequences)

    forward.run = counted  # type: ignore[method-assign,assignment]
    try:
        *chunks, finish = engine.stream(Prompt(text, ()), sampling)
    finally:
        del forward.run
    assert isinstance(finish, Finish)
    return "".join(chunk.text for chunk in chunks if isinstance(chunk, Chunk)), calls


@pytest.mark.parametrize("sampling", [GREEDY, DRAWN], ids=["greedy", "drawn"])
@pytest.mark.parametrize("draft", ["small", "large"])
def test_drafts_change_no_token(opened: Any, draft: str, sampling: Sampling) -> None:
    plain = opened("large", drafts=False)
    engine = opened("large", draft)
    model = drafting(engine, Cheap())
    for text in PROMPTS:
        expected, _ = answer(plain, text, sampling)
        assert answer(engine, text, sampling)[0] == expected
    assert model.proposed > 20 and model.right <= model.proposed


def test_a_model_that_drafts_for_itself_is_right(opened: Any) -> None:
    """Four tokens or more a call, for every draft is kept."""
    engine = opened("large", "large")
    model = drafting(engine, Cheap())
    for chance in range(10):
        for _ in range(60):
            model.chances.count(chance / 10, True)
    _, calls = answer(engine, PROMPTS[0], GREEDY)
    assert model.right == model.proposed > 40 and calls < 20


def test_what_is_measured_decides_and_changes_no_token(opened: Any) -> None:
    """Both models are equally fast here: drafts cannot pay."""
    plain, engine = opened("large", drafts=False), opened("large", "large")
    model = drafting(engine)
    long = Sampling(temperature=0, max_tokens=400, ignore_eos=True, seed=1)
    for text in PROMPTS[:2]:
        assert answer(engine, text, long)[0] == answer(plain, text, long)[0]
    assert model.proposed < 400


def test_the_next_turn_is_drafted_from_what_is_read(opened: Any) -> None:
    engine = opened("large", "small", slots=2)
    model = drafting(engine, Cheap())
    first = PROMPTS[1]
    said, _ = answer(engine, first, GREEDY)
    read = []
    run = model.forward.run

    def counted(sequences: list[SequenceInput]) -> Any:
        read.append(len(sequences[0].ids))
        return run(sequences)

    model.forward.run = counted  # type: ignore[method-assign]
    answer(engine, f"{first}{said} the quick", GREEDY)
    assert read and max(read) < 80 < len(engine.encode(Prompt(first + said, ())))


def test_several_answers_at_once_have_no_drafts_of_a_model(opened: Any) -> None:
    plain = opened("large", drafts=False)
    engine = opened("large", "small", slots=2)
    model = drafting(engine, Cheap())
    running = [engine.begin(Prompt(text, ()), GREEDY) for text in PROMPTS[:2]]
    texts = ["", ""]
    while not all(one.done for one in running):
        going = [index for index, one in enumerate(running) if not one.done]
        events = engine.step([running[index] for index in going])
        for index, new in zip(going, events, strict=True):
            texts[index] += "".join(event.text for event in new if isinstance(event, Chunk))
        if len(going) == 2:
            assert not model.proposed
    assert texts == [answer(plain, text, GREEDY)[0] for text in PROMPTS[:2]]


def test_an_answer_that_is_given_up_gives_its_slot_back(opened: Any) -> None:
    engine = opened("large", "small")
    model = drafting(engine, Cheap())
    stream = engine.stream(Prompt(PROMPTS[0], ()), GREEDY)
    for _ in range(8):
        next(stream)
    assert any(slot.busy for slot in model.slots._slots)
    stream.close()
    assert not any(slot.busy for slot in model.slots._slots)


def test_drafts_follow_a_structure(opened: Any) -> None:
    structure = Structure("regex", "(ab|ba|quick ){20}")
    bound = Sampling(temperature=1.0, seed=3, max_tokens=80, structure=structure)
    expected, _ = answer(opened("large", drafts=False), PROMPTS[0], bound)
    engine = opened("large", "small")
    drafting(engine, Cheap())
    assert answer(engine, PROMPTS[0], bound)[0] == expected


def test_another_vocabulary_is_refused(opened: Any) -> None:
    with pytest.raises(Mismatch, match=r"drafts for: token [0-9]+ is `[ab]` and `[ab]`"):
        opened("large", "other")


def test_an_executor_that_is_not_exact_takes_no_drafts(opened: Any) -> None:
    with pytest.raises(Mismatch, match="requires the compiled step"):
        opened("large", "small", weights="fp32")


def test_a_recurrent_model_cannot_draft(opened: Any, folders: Any, tmp_path: Path) -> None:
    sizes = {"vocab_size": 320, "hidden_size": 64, "num_hidden_layers": 2, "intermediate_size": 96}
    folders["recurrent"] = save_tiny(tmp_path, RwkvConfig(**sizes))
    with pytest.raises(Mismatch, match="its recurrent state cannot go back"):
        opened("large", "recurrent")


def test_a_token_beyond_the_small_vocabulary_ends_its_drafts(opened: Any) -> None:
    engine = opened("large", "small")
    model = drafting(engine, Cheap())
    model.vocabulary = 100
    expected, _ = answer(opened("large", drafts=False), PROMPTS[0], GREEDY)
    assert answer(engine, PROMPTS[0], GREEDY)[0] == expected
    assert not model.proposed


# What is measured


def test_drafts_pause_where_they_do_not_pay() -> None:
    pace = Pace()
    for _ in range(20):
        pace.passed(1, 1.0)
        pace.stepped(1, 0.5)
    assert pace.cost == pytest.approx(0.5 + 1 / 12)
    for _ in range(12):
        pace.finished(1, 2.5)
    assert pace.pauses
    for pause in (15, 30):
        for _ in range(pause):
            pace.passed(1, 1.0)
            assert pace.pauses
        pace.passed(1, 1.0)
        assert not pace.pauses and pace.rate == 1
        for _ in range(12):
            pace.finished(1, 2.5)
        assert pace.pauses, "for twice as long"
        pace.passed(1, 1.0)


def test_drafts_go_on_where_they_pay() -> None:
    pace = Pace()
    for _ in range(20):
        pace.passed(1, 1.0)
        pace.passed(4, 1.25)
        pace.stepped(1, 0.25)
        pace.finished(4, 2.0)
    assert not pace.pauses and pace.rate == pytest.approx(2.0)


def test_a_further_row_costs_what_is_measured() -> None:
    pace = Pace()
    for _ in range(40):
        pace.passed(1, 1.0)
        pace.passed(5, 1.8)
        pace.stepped(1, 0.3)
        pace.stepped(200, 9.0)
    assert pace.row == pytest.approx(0.2, abs=0.02)
    assert pace.cost == pytest.approx(0.3 + 0.2, abs=0.03)


def test_the_first_measurement_is_of_cold_memory() -> None:
    average = Average()
    for value in (100.0, 2.0, 4.0):
        average.add(value)
    assert average.value == 3.0


def test_chances_are_learnt_by_probability() -> None:
    chances = Chances()
    assert chances.of(0.95) == pytest.approx(0.95) and chances.of(1.0) == pytest.approx(0.95)
    for _ in range(200):
        chances.count(0.93, False)
        chances.count(0.31, True)
    assert chances.of(0.95) < 0.01 and chances.of(0.35) > 0.99
    assert torch.tensor([chances.of(p / 50) for p in range(51)]).isfinite().all()
