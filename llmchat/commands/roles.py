"""The commands for roles: list, show, edit and import them."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from llmchat.commands import options
from llmchat.errors import LlmchatError, UsageError
from llmchat.output.formatting import counted
from llmchat.output.terminal_text import fit_for
from llmchat.settings import World, replace_text

if TYPE_CHECKING:
    from llmchat.roles.importing import Found

app = typer.Typer(
    help="List, show, edit and import roles: saved prompts and options.", no_args_is_help=True
)

_Name = Annotated[
    str,
    typer.Argument(metavar="NAME", help="Name of a role.", autocompletion=options.complete_role),
]


@app.command("list")
def list_roles(
    ctx: typer.Context,
    json: options.Json = False,
    quiet: options.NamesOnly = False,
) -> None:
    """List the built-in roles and your own."""
    from llmchat import roles
    from llmchat.commands.outputs import ListedRole
    from llmchat.ui import tables

    world: World = ctx.obj
    rows = [ListedRole.of(role, world.own_roles) for role in roles.names(world.own_roles).values()]
    tables.rows(world, rows, ("name", "about", "origin"), json=json, quiet=quiet)
    if not quiet:
        tables.notes(world, roles.broken(world.own_roles))


@app.command("show")
def show_role(ctx: typer.Context, name: _Name, json: options.Json = False) -> None:
    """Print a role's file; with --json, its values."""
    from llmchat import roles
    from llmchat.ui.json_output import print_json

    world: World = ctx.obj
    path = roles.path_of(name, world.own_roles)
    if json:
        return print_json(world, roles.read_role(path))
    print(f"# {path}", file=world.stderr)
    print(fit_for(world.stdout, world.read_text(str(path)).rstrip()), file=world.stdout)


@app.command("edit")
def edit_role(ctx: typer.Context, name: _Name) -> None:
    """Edit a role in your editor: your own, a copy of a built-in one, or a new one."""
    from llmchat import roles
    from llmchat.roles.files import begun_text, own_path

    world: World = ctx.obj
    path = own_path(world.own_roles, name)
    before = begun_text(world.own_roles, name)
    after = _edited(before)
    if after is None:
        print("nothing changed", file=world.stderr)
        return
    replace_text(path, after)
    print(f"saved to {path}", file=world.stderr)
    try:
        roles.read_role(path)
    except UsageError as error:
        again = f"`llmchat roles edit {name}` corrects it"
        hint = f"{error.hint}; {again}" if error.hint else again
        raise UsageError(error.message, hint) from error
    print(f"`llmchat --role {name}` uses it", file=world.stderr)


def _edited(text: str) -> str | None:
    """The text as the user's editor saved it; None where it did not."""
    import click

    try:
        after = click.edit(text, extension=".toml")
    except click.ClickException as error:
        raise UsageError(error.format_message(), "set VISUAL or EDITOR to your editor") from error
    return None if after in (None, text) else after


@app.command("import")
def import_roles(
    ctx: typer.Context,
    file: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[FILE|FOLDER]...",
            help="Roles or macros of aichat (.md, .yaml), templates of llm (.yaml), or folders of"
            " them; by default those on this machine.",
        ),
    ] = None,
    replace: Annotated[
        bool, typer.Option("--replace", help="Replace roles of yours that have the same name.")
    ] = False,
) -> None:
    """Import roles and macros of aichat, and templates of simonw/llm."""
    from llmchat.roles.importing import found_in

    world: World = ctx.obj
    imported = failed = 0
    for path in _places(world, file or []):
        for found in found_in(path):
            try:
                if isinstance(found, UsageError):
                    raise found
                _import(world, found, replace=replace)
                imported += 1
            except LlmchatError as error:
                failed += 1
                hint = f" ({error.hint})" if error.hint else ""
                print(f"note: {error.message}{hint}", file=world.stderr)
    _report(world, imported, failed)


def _places(world: World, files: list[str]) -> list[Path]:
    from llmchat.roles.importing import usual_places

    places = [Path(file).expanduser() for file in files] if files else usual_places(world)
    for place in places:
        if not place.exists():
            raise UsageError(f"there is no file {place}")
    if not places:
        raise UsageError(
            "neither aichat nor llm has roles or templates here", "name a file or a folder"
        )
    return places


def _import(world: World, found: "Found", *, replace: bool) -> None:
    """Write one role, and print its name and what was left out."""
    from llmchat.presets import is_preset
    from llmchat.roles.files import own_path, text_of_table
    from llmchat.roles.load import parse_role

    path = own_path(world.own_roles, found.name)
    if path.exists() and not replace:
        raise UsageError(f"the role `{found.name}` exists", "--replace replaces it")
    table = found.table
    if found.model and is_preset(found.model, world.own_presets):
        table = {"model": found.model, **table}
    elif found.model:
        found.notes.append(f"its model `{found.model}` is left out: llmchat has no such preset")
    text = text_of_table(table)
    parse_role(text, path)
    replace_text(path, text)
    print(fit_for(world.stdout, found.name), file=world.stdout)
    for note in found.notes:
        print(f"note: {found.name}: {note}", file=world.stderr)


def _report(world: World, imported: int, failed: int) -> None:
    if failed:
        raise LlmchatError(
            f"{counted(failed, 'file or role', 'files or roles')} could not be imported",
            f"imported: {imported}" if imported else "",
        )
    print(f"{counted(imported, 'role')} in {world.own_roles}", file=world.stderr)
