"""The commands for facts that are remembered of the user."""

from typing import TYPE_CHECKING, Annotated

import typer

from llmchat.commands import options
from llmchat.commands.confirm import confirmed
from llmchat.errors import UsageError
from llmchat.output.formatting import counted
from llmchat.settings import World

if TYPE_CHECKING:
    from llmchat.memory.facts import Facts

app = typer.Typer(
    help="List and edit facts about you; chats get them after `config set memory on`.",
    no_args_is_help=True,
)

_Number = Annotated[int, typer.Argument(metavar="N", help="Number of the fact.", min=1)]
_Text = Annotated[str, typer.Argument(metavar="TEXT", help="The fact, in one line.")]


def _facts(world: World) -> "Facts":
    from llmchat.memory.facts import Facts

    return Facts.of(world)


@app.command("list")
def list_facts(
    ctx: typer.Context,
    json: options.Json = False,
    quiet: Annotated[bool, typer.Option("-q", "--quiet", help="Numbers only.")] = False,
) -> None:
    """List the facts, oldest first."""
    from llmchat.ui import tables

    tables.rows(ctx.obj, _facts(ctx.obj).all(), ("id", "text"), json=json, quiet=quiet)


@app.command()
def add(ctx: typer.Context, text: _Text) -> None:
    """Remember a fact."""
    fact = _facts(ctx.obj).add(text)
    print(f"remembered as {fact.id}", file=ctx.obj.stderr)


@app.command()
def edit(ctx: typer.Context, number: _Number, text: _Text) -> None:
    """Replace the text of a fact."""
    fact = _facts(ctx.obj).edit(number, text)
    print(f"fact {fact.id} changed", file=ctx.obj.stderr)


@app.command()
def rm(
    ctx: typer.Context,
    numbers: Annotated[
        list[int] | None, typer.Argument(metavar="[N]...", help="Numbers of facts.", min=1)
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="Forget everything.")] = False,
    yes: options.Yes = False,
) -> None:
    """Forget facts; their text is overwritten on the disk."""
    world: World = ctx.obj
    facts = _facts(world)
    if bool(numbers) == everything:
        raise UsageError("`memory rm` takes numbers of facts, or --all")
    if everything:
        numbers = [fact.id for fact in facts.all()]
        question = f"forget {counted(len(numbers), 'fact')}?"
        if not yes and not (world.interactive and confirmed(world, question)):
            raise UsageError("nothing was forgotten", "-y forgets without asking")
    removed = facts.remove(*(numbers or ()))
    print(f"{counted(len(removed), 'fact')} forgotten", file=world.stderr)
