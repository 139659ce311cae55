"""`llmchat config`: show the options and where their values come from, and change config.toml."""

from typing import Annotated, Any

import msgspec
import typer

from llmchat.commands import options
from llmchat.errors import LlmchatError
from llmchat.settings import Options, Settings, World, resolve

app = typer.Typer(help="Show and change settings.", no_args_is_help=True)


def _complete_option(incomplete: str) -> list[str]:
    return [name for name in Options.__struct_fields__ if name.startswith(incomplete)]


_Key = Annotated[
    str,
    typer.Argument(
        metavar="KEY",
        help="An option, as `config show` lists them.",
        autocompletion=_complete_option,
    ),
]


@app.command("show")
@options.with_options("role", before="json")
def show_config(
    ctx: typer.Context,
    origin: Annotated[
        bool, typer.Option("--origin", help="Show where each value came from.")
    ] = False,
    json: options.Json = False,
    **shared: Any,
) -> None:
    """Every option and its value, with the options of the role in use."""
    from llmchat.commands.outputs import OptionOrigin
    from llmchat.ui import tables

    world: World = ctx.obj
    settings = _settings(world, options.given(ctx))
    # All of them: the struct itself leaves out those that have their default.
    values = msgspec.structs.asdict(settings.options)
    if origin:
        rows = [OptionOrigin(name, values[name], settings.origins[name]) for name in values]
        return tables.rows(world, rows, ("name", "value", "origin"), json=json)
    tables.facts(world, values, json=json)


def _settings(world: World, flags: dict[str, Any]) -> Settings:
    """The options of a chat with these flags; a note says why a role cannot be used."""
    from llmchat.roles import chosen_role, settings_with_role

    settings = resolve(world, flags)
    try:
        role = chosen_role(settings.options.role, world.own_roles)
        return settings_with_role(world, role, flags)
    except LlmchatError as error:
        origin = settings.origins["role"]
        if origin == "flag":
            raise
        print(f"note: the role of {origin} is not used: {error.message}", file=world.stderr)
        return settings


@app.command("set", context_settings={"ignore_unknown_options": True})
def set_config(
    ctx: typer.Context,
    key: _Key,
    value: Annotated[str, typer.Argument(metavar="VALUE", help="Its value.")],
) -> None:
    """Set an option in config.toml; the rest of the file stays as it is."""
    from llmchat.settings import config_file

    world: World = ctx.obj
    name, checked = config_file.set_key(world, key, value)
    print(f"{name} = {checked} in {world.config_file}", file=world.stderr)


@app.command("unset")
def unset_config(ctx: typer.Context, key: _Key) -> None:
    """Remove an option from config.toml."""
    from llmchat.settings import config_file

    world: World = ctx.obj
    found = config_file.unset_key(world, key)
    outcome = "removed from" if found else "is not set in"
    print(f"{key} {outcome} {world.config_file}", file=world.stderr)


@app.command("path")
def config_path(ctx: typer.Context) -> None:
    """Where settings, presets, roles and history are kept."""
    world: World = ctx.obj
    paths = {
        "config": world.config_file,
        "presets": world.own_presets,
        "roles": world.own_roles,
        "history": world.history_file,
        "cache": world.cache,
    }
    for name, path in paths.items():
        print(f"{name:8} {path}", file=world.stdout)
