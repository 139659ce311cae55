"""Named training recipes, one TOML file each: published ones and a measured default."""

import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct
from msgspec.structs import asdict

from llmchat.errors import UsageError, did_you_mean
from llmchat.settings.types import Weights

FOLDER = Path(__file__).parent


class Recipe(Struct, frozen=True, forbid_unknown_fields=True):
    """How an adapter is trained.

    targets: the linear layers with an adapter, by the ends of their names, or "all-linear"; alpha /
    rank scales the change (alpha / sqrt(rank) with rslora); batch: records per step, in
    micro-batches of micro_batch; epochs: passes over the data, unless max_steps is set; cutoff:
    tokens of the longest record, longer ones are skipped or cut; warmup_steps: steps in which the
    rate rises from 0; loss_on: the answers with their end marks, or everything; patience:
    evaluations without progress before training stops, 0 for never; evaluation: held-out records,
    as a fraction or a number; base: the kind of weights of the frozen base.
    """

    name: str
    """Name of the recipe."""
    source: str = ""
    """Where it was published."""
    notes: str = ""
    """What to know about it."""
    rank: Annotated[int, Meta(ge=1, le=1024)] = 16
    """LoRA rank."""
    alpha: Annotated[float, Meta(gt=0)] = 32
    """LoRA alpha; alpha / rank scales the change."""
    dropout: Annotated[float, Meta(ge=0, lt=1)] = 0.0
    """Dropout on the adapter's input."""
    targets: str | tuple[str, ...] = "all-linear"
    """Linear layers with an adapter, or `all-linear`."""
    rslora: bool = False
    """Whether alpha / sqrt(rank) scales the change."""
    dora: bool = False
    """Whether magnitudes are trained apart (DoRA)."""
    learning_rate: Annotated[float, Meta(gt=0, lt=1)] = 3e-4
    """Peak of the learning rate."""
    batch: Annotated[int, Meta(ge=1)] = 16
    """Records per step."""
    micro_batch: Annotated[int, Meta(ge=1)] = 8
    """Records in memory at once."""
    epochs: Annotated[float, Meta(gt=0)] = 3
    """Passes over the data."""
    max_steps: Annotated[int, Meta(ge=0)] = 0
    """Steps in all; 0 for epochs."""
    cutoff: Annotated[int, Meta(ge=8)] = 1024
    """Tokens of the longest record."""
    long: Literal["skip", "cut"] = "skip"
    """What happens to longer records."""
    warmup_steps: Annotated[int, Meta(ge=0)] = 10
    """Steps in which the learning rate rises."""
    schedule: Literal["linear", "cosine", "constant"] = "cosine"
    """How the learning rate falls."""
    weight_decay: Annotated[float, Meta(ge=0)] = 0.0
    """Weight decay."""
    loss_on: Literal["answers", "everything"] = "answers"
    """Tokens that count: the answers with their stop tokens, or everything."""
    group_by_length: bool = True
    """Whether a batch has records of similar length."""
    checkpointing: bool = False
    """Whether activations are computed twice to save memory."""
    patience: Annotated[int, Meta(ge=0)] = 3
    """Evaluations without progress before it stops; 0 for never."""
    evaluation: Annotated[float, Meta(ge=0)] = 0.05
    """Records held out: a fraction below 1, or a number."""
    base: Weights = "bf16"
    """Kind of weights of the frozen base."""
    seed: Annotated[int, Meta(ge=0)] = 0
    """Seed of the run."""


def recipes() -> tuple[str, ...]:
    return tuple(sorted(path.stem for path in FOLDER.glob("*.toml")))


def get_recipe(name: str, changes: dict[str, Any] | None = None) -> Recipe:
    """A recipe by name or from a TOML file, with those `changes` that are not None.

    Raises UsageError for an invalid field.
    """
    path = Path(name).expanduser() if name.endswith(".toml") else FOLDER / f"{name}.toml"
    if not path.is_file():
        raise UsageError(
            f"unknown recipe `{name}`",
            did_you_mean(name, recipes()) or f"there are {', '.join(recipes())}",
        )
    given = {field: value for field, value in (changes or {}).items() if value is not None}
    try:
        table = tomllib.loads(path.read_text("utf-8"))
        recipe = msgspec.convert({"name": path.stem, **table, **given}, Recipe, strict=False)
    except (tomllib.TOMLDecodeError, msgspec.ValidationError) as error:
        raise UsageError(f"invalid recipe {path.stem}: {error}") from error
    if recipe.micro_batch > recipe.batch:
        recipe = msgspec.convert({**asdict(recipe), "micro_batch": recipe.batch}, Recipe)
    return recipe
