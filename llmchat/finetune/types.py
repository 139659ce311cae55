"""The values of a fine-tuning run: what to train, and what came of it."""

from pathlib import Path

from msgspec import Struct

from llmchat.finetune.recipes import Recipe
from llmchat.presets import Preset


class Task(Struct, frozen=True):
    """What is asked: a base, data (as `finetune.data.read` takes it), how, and where to. samples: held-out questions answered before and after."""

    preset: Preset
    data: tuple[str, ...]
    data_format: str
    recipe: Recipe
    output: Path
    device: str = "auto"
    samples: int = 4
    language: str = ""
    report_to: tuple[str, ...] = ()
    overwrite: bool = False
    quiet: bool = False


class Counts(Struct, frozen=True):
    """What the data became."""

    records: int
    trained_on: int
    held_out: int
    skipped: int
    cut: int
    tokens: int


class Sample(Struct, frozen=True):
    """A held-out question, what the data answers, and what the model says before and after."""

    question: str
    wanted: str
    before: str
    after: str


class Trained(Struct, frozen=True):
    """A finished run. curve: (step, training loss, evaluation loss) where each was taken; tokens_per_second: without evaluation and saving."""

    steps: int
    curve: tuple[tuple[int, float | None, float | None], ...]
    best_loss: float | None
    seconds: float
    tokens: int
    tokens_per_second: float
    micro_batch: int
    parameters: int
    stopped_early: bool


class Outcome(Struct, frozen=True):
    """What a run left behind; run.json holds it as well."""

    name: str
    base: str
    base_revision: str
    format: str
    recipe: Recipe
    data: tuple[str, ...]
    counts: Counts
    trained: Trained
    samples: tuple[Sample, ...]
    preset_file: str
