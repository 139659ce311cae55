"""Short training runs of a tiny model."""

from pathlib import Path
from typing import Any

from msgspec.structs import replace

from llmchat.finetune.recipes import Recipe, get_recipe
from llmchat.finetune.run import finetune
from llmchat.finetune.types import Outcome, Task
from llmchat.presets import preset_for
from llmchat.settings import Options, World

QUICK = replace(
    get_recipe("default"),
    base="fp32",
    batch=4,
    micro_batch=4,
    max_steps=8,
    warmup_steps=1,
    learning_rate=1e-2,
    evaluation=8,
    schedule="constant",
)


def task(base: Path, data: Path, output: Path, recipe: Recipe = QUICK, **more: Any) -> Task:
    preset = preset_for(Options(model=str(base), format="alpaca", weights="fp32"))
    return Task(
        preset,
        (str(data),),
        "auto",
        recipe,
        output,
        device="cpu",
        samples=more.pop("samples", 0),
        quiet=True,
        **more,
    )


def run(world: World, *arguments: Any, **more: Any) -> Outcome:
    outcome = finetune(task(*arguments, **more), world)
    assert outcome is not None
    return outcome
