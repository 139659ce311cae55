"""The values of a fine-tuning run: its task and its results."""

from pathlib import Path

from msgspec import Struct

from llmchat.finetune.recipes import Recipe
from llmchat.presets import Preset


class Task(Struct, frozen=True):
    """The task: a base, data (as for `finetune.data.read`), a recipe and an output folder.

    samples: the number of held-out questions that are answered before and after.
    live_plot: whether a terminal shows the loss curves while the run goes on.
    """

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
    live_plot: bool = False


class Counts(Struct, frozen=True):
    """What the data became."""

    records: int
    """Records that were read."""
    trained_on: int
    """Records that were trained on."""
    held_out: int
    """Records held out for evaluation."""
    skipped: int
    """Records that were too long."""
    cut: int
    """Records that were cut."""
    tokens: int
    """Tokens of the training records."""


class Sample(Struct, frozen=True):
    """A held-out question with the data's answer and the model's, before and after."""

    question: str
    """The question."""
    wanted: str
    """Answer in the data."""
    before: str
    """Answer of the base."""
    after: str
    """Answer with the adapter."""


class Trained(Struct, frozen=True):
    """The measurements of a finished run."""

    steps: int
    """Optimizer steps."""
    curve: tuple[tuple[int, float | None, float | None], ...]
    """Step, training loss and evaluation loss, where each was taken."""
    best_loss: float | None
    """Lowest evaluation loss."""
    seconds: float
    """Training time."""
    tokens: int
    """Tokens trained on."""
    tokens_per_second: float
    """Training speed, without evaluation and saving."""
    micro_batch: int
    """Records in memory at once."""
    parameters: int
    """Trained parameters."""
    stopped_early: bool
    """Whether evaluation stopped it early."""


class Outcome(Struct, frozen=True):
    """The result of a run, as in run.json."""

    name: str
    """Name of the new preset."""
    base: str
    """The base model."""
    base_revision: str
    """Its commit."""
    format: str
    """Prompt format that was trained."""
    recipe: Recipe
    """How it was trained."""
    data: tuple[str, ...]
    """Sources of the data."""
    counts: Counts
    """What the data became."""
    trained: Trained
    """The training run."""
    samples: tuple[Sample, ...]
    """Held-out questions, answered before and after."""
    preset_file: str
    """Path of the new preset; empty if its name was taken."""
