"""The commands that make models: finetune, merge, push."""

from pathlib import Path
from typing import Annotated

import typer

from llmchat.commands import options
from llmchat.errors import UsageError
from llmchat.settings import World
from llmchat.settings.types import Weights, in_words

app = typer.Typer()

HOW, DATA = "How it is trained", "Data"


@app.command()
def finetune(
    ctx: typer.Context,
    base: Annotated[
        str,
        typer.Option(
            "--base",
            "-m",
            "--model",
            help="What is trained: a pulled preset, repo or folder.",
            autocompletion=options.complete_model,
        ),
    ],
    data: Annotated[
        list[str],
        typer.Option(
            "--data",
            metavar="SOURCE",
            help="FILE, FOLDER, `-`, hub:org/name or sessions:, with =WEIGHT; may be given again.",
            rich_help_panel=DATA,
        ),
    ],
    output: Annotated[
        str,
        typer.Option(
            "--output",
            "-o",
            metavar="DIR",
            help="Where adapter, preset and report go; its name becomes the preset's.",
        ),
    ],
    data_format: Annotated[
        str,
        typer.Option(help="Format of the data; auto looks at the fields.", rich_help_panel=DATA),
    ] = "auto",
    language: Annotated[
        str, typer.Option(help="Of OASST trees, this language alone.", rich_help_panel=DATA)
    ] = "",
    format: options.Format = None,
    recipe: Annotated[
        str,
        typer.Option(
            help="default, alpaca-lora, alpaca-lora-16, or a TOML file.", rich_help_panel=HOW
        ),
    ] = "default",
    rank: Annotated[int | None, typer.Option(rich_help_panel=HOW, help="Of the matrices.")] = None,
    alpha: Annotated[
        float | None, typer.Option(rich_help_panel=HOW, help="alpha / rank scales the change.")
    ] = None,
    targets: Annotated[
        str | None,
        typer.Option(
            rich_help_panel=HOW, help="Linears with matrices, commas between; or all-linear."
        ),
    ] = None,
    rslora: Annotated[
        bool | None,
        typer.Option(
            "--rslora", rich_help_panel=HOW, help="Scale by alpha / sqrt(rank).", show_default=False
        ),
    ] = None,
    dora: Annotated[
        bool | None,
        typer.Option(
            "--dora", rich_help_panel=HOW, help="Train magnitudes apart (DoRA).", show_default=False
        ),
    ] = None,
    learning_rate: Annotated[
        float | None, typer.Option(rich_help_panel=HOW, help="Peak of the learning rate.")
    ] = None,
    epochs: Annotated[
        float | None, typer.Option(rich_help_panel=HOW, help="Passes over the data.")
    ] = None,
    max_steps: Annotated[
        int | None, typer.Option(rich_help_panel=HOW, help="Steps in all, instead of epochs.")
    ] = None,
    batch: Annotated[int | None, typer.Option(rich_help_panel=HOW, help="Records a step.")] = None,
    micro_batch: Annotated[
        int | None,
        typer.Option(rich_help_panel=HOW, help="Records at once; halved when memory runs out."),
    ] = None,
    cutoff: Annotated[
        int | None, typer.Option(rich_help_panel=HOW, help="Tokens of the longest record.")
    ] = None,
    evaluation: Annotated[
        float | None,
        typer.Option(
            rich_help_panel=HOW, help="Held out: a share below 1, or a number of records."
        ),
    ] = None,
    patience: Annotated[
        int | None,
        typer.Option(
            rich_help_panel=HOW, help="Evaluations without progress before it stops; 0 never."
        ),
    ] = None,
    base_weights: Annotated[
        str | None,
        typer.Option(
            rich_help_panel=HOW, help=f"The frozen base as {in_words(Weights)}; int4 is QLoRA."
        ),
    ] = None,
    checkpointing: Annotated[
        bool | None,
        typer.Option(
            "--checkpointing",
            rich_help_panel=HOW,
            help="Compute activations twice to save memory.",
            show_default=False,
        ),
    ] = None,
    seed: Annotated[
        int | None, typer.Option(rich_help_panel=HOW, help="Same seed, same run.")
    ] = None,
    samples: Annotated[
        int,
        typer.Option(
            min=0, help="Held-out questions answered before and after.", rich_help_panel=HOW
        ),
    ] = 4,
    report_to: Annotated[
        str,
        typer.Option(
            help="tensorboard, wandb: the trainer's own hooks.", rich_help_panel=options.OUTPUT
        ),
    ] = "",
    device: options.Device = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace another run in DIR.")
    ] = False,
    quiet: options.Quiet = False,
    json: options.Json = False,
) -> None:
    """Teach a model: train a LoRA adapter on instruction data, and leave a preset that chats with it. The same command goes on after a stop."""
    from llmchat.finetune.recipes import get_recipe
    from llmchat.finetune.run import finetune as run
    from llmchat.finetune.types import Task
    from llmchat.models.opener import preset_of
    from llmchat.ui.json_output import print_json

    world: World = ctx.obj
    wanted = (
        "all-linear" if targets == "all-linear" else tuple(targets.split(",")) if targets else None
    )
    changes = {
        "rank": rank, "alpha": alpha, "targets": wanted, "rslora": rslora, "dora": dora, "learning_rate": learning_rate, "epochs": epochs,
        "max_steps": max_steps, "batch": batch, "micro_batch": micro_batch, "cutoff": cutoff, "evaluation": evaluation, "patience": patience,
        "base": base_weights, "checkpointing": checkpointing, "seed": seed,
    }  # fmt: skip
    task = Task(
        preset=preset_of(world, model=base, format=format),
        data=tuple(data),
        data_format=data_format,
        recipe=get_recipe(recipe, changes),
        output=Path(output).expanduser(),
        device=device or "auto",
        samples=samples,
        language=language,
        report_to=tuple(filter(None, report_to.split(","))),
        overwrite=overwrite,
        quiet=quiet,
    )
    try:
        outcome = run(task, world)
    except KeyboardInterrupt:
        print("\nstopped; the same command goes on from the last checkpoint", file=world.stderr)
        raise
    if outcome is None:
        return
    if json:
        return print_json(world, outcome)
    name = outcome.name
    if not outcome.preset_file:
        print(
            f"note: a preset of yours is called {name} already; {task.output / 'preset.toml'} was not put beside it",
            file=world.stderr,
        )
        name = f"{task.preset.name} --adapter {task.output / 'adapter'} --format {outcome.format}"
    print(
        f"adapter: {task.output / 'adapter'}\nreport:  {task.output / 'report.html'}",
        file=world.stderr,
    )
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
        str, typer.Option("--output", "-o", metavar="DIR", help="Where the checkpoint goes.")
    ],
    base: options.Base = None,
    adapter: options.Adapter = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace what is in DIR.")] = False,
) -> None:
    """Write a full checkpoint with the adapters merged into the base, for tools that know no adapters."""
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
            metavar="ORG/NAME", help="The repo on the Hub; it is made where it does not exist."
        ),
    ],
    private: Annotated[bool, typer.Option("--private", help="A new repo is private.")] = False,
    message: Annotated[str, typer.Option(help="Of the commit.")] = "Uploaded by llmchat",
) -> None:
    """Upload an adapter or a checkpoint, with a model card, to the Hub. Needs a token that may write."""
    from llmchat.finetune.card import folder_to_push
    from llmchat.hub.upload import upload

    world: World = ctx.obj
    with folder_to_push(Path(folder).expanduser(), repo) as ready:
        print(upload(ready, repo, world, private=private, message=message), file=world.stdout)
