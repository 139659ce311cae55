"""`llmchat prompt`: exactly what a model would be given for a list of messages."""

from typing import Annotated, Any

import typer

from llmchat.commands import options
from llmchat.settings import World, resolve


@options.with_options(
    "model", "base", "adapter", "format", "revision", "role", "system", "context", "policy",
    "turns", "max_tokens", before="ids",
)  # fmt: skip
def prompt(
    ctx: typer.Context,
    file: Annotated[
        str,
        typer.Argument(
            metavar="[FILE|-]",
            help="A JSON list of messages: role, content, and optionally input (material).",
        ),
    ] = "-",
    ids: Annotated[
        bool,
        typer.Option("--ids", help="Token ids instead of text.", rich_help_panel=options.OUTPUT),
    ] = False,
    **shared: Any,
) -> None:
    """Print exactly what a model would be given; dropped messages are listed on stderr."""
    from llmchat.commands.render_prompt import run
    from llmchat.presets import preset_for
    from llmchat.roles import chosen_role, settings_with_role

    world: World = ctx.obj
    given = options.given(ctx)
    role = chosen_role(resolve(world, given).options.role, world.own_roles)
    chosen = settings_with_role(world, role, given).options
    preset, trim = preset_for(chosen, world.own_presets), bool(chosen.context)
    run(world, preset, file, ids=ids, trim=trim, role=role)
