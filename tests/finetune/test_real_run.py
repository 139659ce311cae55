"""The short version of benchmarks/finetune.py: the default model learns three families of tasks and
answers held-out items of them.
"""

from pathlib import Path

import pytest
from lessons import FAMILIES, lessons, tasks, write
from msgspec.structs import replace

from llmchat.conversation import Conversation, Message
from llmchat.engines import Chunk, Sampling
from llmchat.finetune.recipes import get_recipe
from llmchat.finetune.run import finetune
from llmchat.finetune.types import Task
from llmchat.models.loading import load
from llmchat.models.locate import Model, locate
from llmchat.presets import find, preset_for
from llmchat.settings import Options, World

EASY = {family.__name__ for family in FAMILIES} - {"date", "record", "backwards"}


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_default_model_learns_answers_and_stops(smol_world: World, tmp_path: Path) -> None:
    taught, kept = ([row for row in rows if row["task"] in EASY] for rows in lessons(270, 24))
    write(
        tmp_path / "train.jsonl",
        [{key: row[key] for key in ("instruction", "input", "output")} for row in taught],
    )
    recipe = replace(get_recipe("default"), batch=8, epochs=1.5, warmup_steps=4, evaluation=0)
    base = preset_for(Options(model="smollm2", format="alpaca"))
    outcome = finetune(
        Task(
            base,
            (str(tmp_path / "train.jsonl"),),
            "auto",
            recipe,
            tmp_path / "pupil",
            device="cpu",
            samples=0,
            quiet=True,
        ),
        smol_world,
    )
    assert outcome and outcome.trained.curve[-1][1] < 0.3 < outcome.trained.curve[0][1]  # type: ignore[operator]
    before = right(locate(base, smol_world), kept)
    after = right(locate(find("pupil", smol_world.own_presets), smol_world), kept)
    assert before <= 0.1 and after >= 0.8, (before, after)


def right(model: Model, rows: list[dict[str, str]]) -> float:
    """The share of items that are answered exactly, ended by the model itself."""
    from llmchat.reply import reply

    engine = load(model, Options(device="cpu"))
    hits = 0
    for item in tasks(rows):
        conversation = Conversation((Message("user", item["prompt"], item["input"]),))
        *events, finish = reply(
            conversation, model.preset, engine, Sampling(temperature=0, max_tokens=24)
        )
        text = "".join(event.text for event in events if isinstance(event, Chunk))
        hits += text == item["answer"] and finish.reason == "stop"  # type: ignore[union-attr]
    engine.unload()
    return hits / len(rows)
