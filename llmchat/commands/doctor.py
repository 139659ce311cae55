"""`llmchat doctor`: what a model is given, and whether its answers will end."""

from typing import Annotated

import typer

from llmchat.commands import options
from llmchat.errors import Mismatch
from llmchat.output.terminal_text import fit_for
from llmchat.settings import World


def doctor(
    ctx: typer.Context,
    model: Annotated[
        str | None,
        typer.Argument(
            help="A preset, a Hub repo, a folder or a .gguf file.",
            autocompletion=options.complete_model,
        ),
    ] = None,
    base: options.Base = None,
    adapter: options.Adapter = None,
    format: options.Format = None,
    json: options.Json = False,
) -> None:
    """Check a model's prompt format and stop tokens, and show a chat as the model receives it."""
    from llmchat.models import doctor as room
    from llmchat.models.opener import preset_of
    from llmchat.ui.json_output import print_json

    world: World = ctx.obj
    report = room.examine(
        preset_of(world, model=model, base=base, adapter=adapter, format=format), world
    )
    if json:
        print_json(world, report)
    else:
        for line in room.lines(report):
            print(fit_for(world.stdout, line), file=world.stdout)
    if not report.healthy:
        raise Mismatch(
            f"{report.model} will not answer as it was trained",
            "the lines above say why; --format selects another format",
        )
