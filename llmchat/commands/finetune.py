"""The commands that make models: finetune, merge, push."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from llmchat.commands import options
from llmchat.errors import UsageError
from llmchat.settings import World
from llmchat.settings.types import Weights, in_words

if TYPE_CHECKING:
    from llmchat.finetune.types import Outcome, Task

app = typer.Typer()

HOW, DATA = "Training", "Data"


_Base = Annotated[
    str,
    typer.Option(
        "--base",
        "-m",
        "--model",
        help="The model to train: a pulled preset, repo or folder.",
        autocompletion=options.complete_model,
    ),
]
_Data = Annotated[
    list[str],
    typer.Option(
        "--data",
        metavar="SOURCE",
        help="FILE, FOLDER, `-`, hub:org/name or sessions:, with =WEIGHT; may be repeated.",
        rich_help_panel=DATA,
    ),
]
_Output = Annotated[
    str,
    typer.Option(
        "--output",
        "-o",
        metavar="DIR",
        help="Folder for adapter, preset and report; the preset gets its name.",
    ),
]
_DataFormat = Annotated[
    str,
    typer.Option(help="Format of the data; auto detects it by the fields.", rich_help_panel=DATA),
]
_Language = Annotated[
    str, typer.Option(help="Only OASST trees in this language.", rich_help_panel=DATA)
]
_Recipe = Annotated[
    str,
    typer.Option(help="default, alpaca-lora, alpaca-lora-16, or a TOML file.", rich_help_panel=HOW),
]
_Rank = Annotated[int | None, typer.Option(rich_help_panel=HOW, help="Rank of the LoRA matrices.")]
_Alpha = Annotated[
    float | None, typer.Option(rich_help_panel=HOW, help="alpha / rank scales the change.")
]
_Targets = Annotated[
    str | None,
    typer.Option(
        rich_help_panel=HOW, help="Linear layers to adapt, separated by commas; or all-linear."
    ),
]
_Rslora = Annotated[
    bool | None,
    typer.Option(
        "--rslora", rich_help_panel=HOW, help="Scale by alpha / sqrt(rank).", show_default=False
    ),
]
_Dora = Annotated[
    bool | None,
    typer.Option(
        "--dora",
        rich_help_panel=HOW,
        help="Train magnitudes separately (DoRA).",
        show_default=False,
    ),
]
_LearningRate = Annotated[
    float | None, typer.Option(rich_help_panel=HOW, help="Peak learning rate.")
]
_Epochs = Annotated[float | None, typer.Option(rich_help_panel=HOW, help="Passes over the data.")]
_MaxSteps = Annotated[
    int | None, typer.Option(rich_help_panel=HOW, help="Steps in all, instead of epochs.")
]
_Batch = Annotated[int | None, typer.Option(rich_help_panel=HOW, help="Records a step.")]
_MicroBatch = Annotated[
    int | None,
    typer.Option(
        rich_help_panel=HOW, help="Records in memory at once; halved when memory runs out."
    ),
]
_Cutoff = Annotated[
    int | None, typer.Option(rich_help_panel=HOW, help="Tokens of the longest record.")
]
_Evaluation = Annotated[
    float | None,
    typer.Option(rich_help_panel=HOW, help="Records held out: a fraction below 1, or a number."),
]
_Patience = Annotated[
    int | None,
    typer.Option(
        rich_help_panel=HOW, help="Evaluations without progress before training stops; 0 for never."
    ),
]
_BaseWeights = Annotated[
    str | None,
    typer.Option(
        rich_help_panel=HOW,
        help=f"Weights of the frozen base: {in_words(Weights)}; nf4 is QLoRA, int4 means the same.",
    ),
]
_Checkpointing = Annotated[
    bool | None,
    typer.Option(
        "--checkpointing",
        rich_help_panel=HOW,
        help="Compute activations twice to save memory.",
        show_default=False,
    ),
]
_Seed = Annotated[int | None, typer.Option(rich_help_panel=HOW, help="Same seed, same run.")]
_Samples = Annotated[
    int,
    typer.Option(min=0, help="Held-out questions to answer before and after.", rich_help_panel=HOW),
]
_ReportTo = Annotated[
    str,
    typer.Option(
        help="tensorboard or wandb, through the trainer's hooks.", rich_help_panel=options.OUTPUT
    ),
]
_Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace another run in DIR.")]


@app.command()
def finetune(
    ctx: typer.Context,
    base: _Base,
    data: _Data,
    output: _Output,
    data_format: _DataFormat = "auto",
    language: _Language = "",
    format: options.Format = None,
    recipe: _Recipe = "default",
    rank: _Rank = None,
    alpha: _Alpha = None,
    targets: _Targets = None,
    rslora: _Rslora = None,
    dora: _Dora = None,
    learning_rate: _LearningRate = None,
    epochs: _Epochs = None,
    max_steps: _MaxSteps = None,
    batch: _Batch = None,
    micro_batch: _MicroBatch = None,
    cutoff: _Cutoff = None,
    evaluation: _Evaluation = None,
    patience: _Patience = None,
    base_weights: _BaseWeights = None,
    checkpointing: _Checkpointing = None,
    seed: _Seed = None,
    samples: _Samples = 4,
    report_to: _ReportTo = "",
    device: options.Device = None,
    overwrite: _Overwrite = False,
    plot_to: options.PlotTo = None,
    quiet: options.Quiet = False,
    json: options.Json = False,
) -> None:
    """Train a LoRA adapter on instruction data, and write a preset that chats with it.

    The same command continues an interrupted run.
    """
    from llmchat.finetune.loss_plot import loss_figure
    from llmchat.finetune.recipes import get_recipe
    from llmchat.finetune.run import finetune as run
    from llmchat.finetune.types import Task
    from llmchat.models.opener import preset_of
    from llmchat.output.plots.showing import show, wish

    world: World = ctx.obj
    wanted = wish(plot_to, world, world.stderr, quiet=json)
    task = Task(
        preset=preset_of(world, model=base, format=format),
        data=tuple(data),
        data_format=data_format,
        recipe=get_recipe(recipe, _recipe_changes(ctx.params)),
        output=Path(output).expanduser(),
        device=device or "auto",
        samples=samples,
        language=language,
        report_to=tuple(filter(None, report_to.split(","))),
        overwrite=overwrite,
        quiet=quiet,
        live_plot=wanted.kind != "none",
    )
    try:
        outcome = run(task, world)
    except KeyboardInterrupt:
        print("\nstopped; the same command continues from the last checkpoint", file=world.stderr)
        raise
    if outcome is not None:
        _print_outcome(outcome, task, world, json=json)
        show(loss_figure({outcome.name: outcome.trained.curve}), wanted, world, world.stderr)


# Flags of a recipe's fields of the same name.
_RECIPE_FLAGS = (
    "rank", "alpha", "rslora", "dora", "learning_rate", "epochs", "max_steps", "batch",
    "micro_batch", "cutoff", "evaluation", "patience", "checkpointing", "seed",
)  # fmt: skip


def _recipe_changes(flags: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a recipe that flags change; None for a flag that was not given."""
    targets = flags["targets"]
    if targets and targets != "all-linear":
        targets = tuple(targets.split(","))
    named = {name: flags[name] for name in _RECIPE_FLAGS}
    return named | {"targets": targets, "base": flags["base_weights"]}


def _print_outcome(outcome: "Outcome", task: "Task", world: World, *, json: bool) -> None:
    """Where adapter and report are, and the command that chats with the new model."""
    from llmchat.ui.json_output import print_json

    if json:
        return print_json(world, outcome)
    name, adapter = outcome.name, task.output / "adapter"
    if not outcome.preset_file:
        print(
            f"note: you have a preset named {name} already, so"
            f" {task.output / 'preset.toml'} was not copied to your presets",
            file=world.stderr,
        )
        name = f"{task.preset.name} --adapter {adapter} --format {outcome.format}"
    print(f"adapter: {adapter}", file=world.stderr)
    print(f"report:  {task.output / 'report.html'}", file=world.stderr)
    print(f"chat:    llmchat chat -m {name}", file=world.stderr)


@app.command()
def merge(
    ctx: typer.Context,
    model: Annotated[
        str,
        typer.Argument(
            help="A preset with adapters, or a base with --adapter.",
            autocompletion=options.complete_model,
        ),
    ],
    output: Annotated[
        str, typer.Option("--output", "-o", metavar="DIR", help="Folder for the checkpoint.")
    ],
    base: options.Base = None,
    adapter: options.Adapter = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace what is in DIR.")] = False,
) -> None:
    """Merge adapters into their base, for tools that do not support adapters."""
    from llmchat.models.merge import merge as run
    from llmchat.models.opener import preset_of

    world: World = ctx.obj
    target = Path(output).expanduser()
    if target.exists() and any(target.iterdir()) and not overwrite:
        raise UsageError(f"{target} is not empty", "--overwrite replaces what is there")
    size = run(preset_of(world, model=model, base=base, adapter=adapter), target, world)
    print(f"{target}: {size / 1e9:.2f} GB; llmchat chat -m {target}", file=world.stderr)


@app.command()
def push(
    ctx: typer.Context,
    folder: Annotated[
        str,
        typer.Argument(metavar="DIR", help="A folder that `llmchat finetune` or `merge` wrote."),
    ],
    repo: Annotated[
        str,
        typer.Argument(
            metavar="ORG/NAME", help="The repo on the Hub; it is created if it does not exist."
        ),
    ],
    private: Annotated[bool, typer.Option("--private", help="Make a new repo private.")] = False,
    message: Annotated[str, typer.Option(help="Commit message.")] = "Uploaded by llmchat",
) -> None:
    """Upload an adapter or a checkpoint to the Hub, with a model card. Requires a write token."""
    from llmchat.finetune.card import folder_to_push
    from llmchat.hub.upload import upload

    world: World = ctx.obj
    with folder_to_push(Path(folder).expanduser(), repo) as ready:
        print(upload(ready, repo, world, private=private, message=message), file=world.stdout)
