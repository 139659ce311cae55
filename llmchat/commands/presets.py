"""The commands for presets: list them, check a preset file."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from llmchat.commands import options
from llmchat.errors import ModelNotFound, UsageError
from llmchat.output.terminal_text import fit_for
from llmchat.settings import World

if TYPE_CHECKING:
    from llmchat.presets import Mistake


class _Words(TyperGroup):
    """`presets WORD...`: a word that is not a subcommand filters the list."""

    def parse_args(self, context: Any, args: list[str]) -> list[str]:
        if not any(arg in self.commands for arg in args):
            args = [
                part
                for arg in args
                for part in ((arg,) if arg.startswith("-") else ("--word", arg))
            ]
        return super().parse_args(context, args)


app = typer.Typer(
    cls=_Words,
    help="List the presets and prompt formats; `presets WORD` filters them.",
    invoke_without_command=True,
)


@app.callback()
def presets(
    ctx: typer.Context,
    word: Annotated[
        list[str] | None,
        typer.Option(
            "--word", metavar="WORD", help="The same as `presets WORD`: list only matches."
        ),
    ] = None,
    formats: Annotated[
        bool, typer.Option("--formats", help="List the prompt formats instead.")
    ] = False,
    json: options.Json = False,
    quiet: options.NamesOnly = False,
) -> None:
    """List the presets: size, licence, and whether they fit this machine."""
    from llmchat import presets as room
    from llmchat.commands.outputs import ListedFormat, ListedPreset
    from llmchat.ui import tables

    if ctx.invoked_subcommand:
        return
    world: World = ctx.obj
    if formats:
        listed = [ListedFormat(name, room.get_format(name).source) for name in room.formats()]
        return tables.rows(world, listed, ("name", "source"), json=json, quiet=quiet)
    from llmchat.hub.machine import installed

    rooms = installed(world)
    found = [
        (preset, room.estimate_fit(preset, rooms))
        for preset in room.names(world.own_presets).values()
        if room.matches(preset, word or ())
    ]
    if word and not found:
        raise ModelNotFound(
            f"no preset matches {' '.join(word)}",
            "words are searched for in names, titles, aliases, formats and licences",
        )
    rows = [
        ListedPreset(
            name=preset.name,
            title=preset.title,
            size=estimate.download,
            fits=estimate.fits,
            format=preset.format.name,
            licence=preset.licence,
            parameters=preset.parameters,
            architecture=preset.architecture,
            aliases=preset.aliases,
            unsupported=preset.unsupported,
        )
        for preset, estimate in found
    ]
    tables.rows(world, rows, ("name", "size", "fits", "format", "licence"), json=json, quiet=quiet)
    if not quiet:
        tables.notes(world, room.broken(world.own_presets))


def _structure_mistakes(path: Path) -> "list[Mistake]":
    """What in the structure of a valid preset cannot be enforced."""
    from llmchat.models.structures import check_structure
    from llmchat.presets import Mistake
    from llmchat.presets.load import read_preset

    preset = read_preset(path)
    try:
        check_structure(preset.sampling.structure, preset.engine)
    except UsageError as error:
        hint = f"; {error.hint}" if error.hint else ""
        return [Mistake(0, f"`sampling.structure`: {error.message}{hint}")]
    return []


@app.command()
def check(
    ctx: typer.Context,
    file: Annotated[str, typer.Argument(help="A preset file (TOML).")],
    json: options.Json = False,
) -> None:
    """Explain every mistake in a preset file, with its line."""
    from llmchat import presets as room
    from llmchat.ui.json_output import print_json

    world: World = ctx.obj
    path = Path(file).expanduser()
    if not path.is_file():
        raise ModelNotFound(f"there is no file {file}")
    mistakes = room.check(path, world.own_presets)
    if not any(one.fatal for one in mistakes):
        mistakes += _structure_mistakes(path)
    if json:
        print_json(world, mistakes)
    else:
        for one in mistakes:
            place = f"{file}:{one.line}:" if one.line else f"{file}:"
            note = "" if one.fatal else "note: "
            print(fit_for(world.stdout, f"{place} {note}{one.text}"), file=world.stdout)
    fatal = sum(one.fatal for one in mistakes)
    if fatal:
        raise UsageError(
            f"{file} has {fatal} mistake{'s' if fatal > 1 else ''}",
            "correct the lines above; `llmchat presets --formats` lists formats",
        )
    if not json:
        place = (
            f"; copy it to {world.own_presets} to use it"
            if path.resolve().parent != world.own_presets.resolve()
            else ""
        )
        print(f"{file} can be used as `{path.stem}`{place}", file=world.stderr)
