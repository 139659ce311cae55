"""The command that lists what plugins add."""

from collections.abc import Collection
from typing import Annotated, Any

import typer

from llmchat import plugins as room
from llmchat.commands import options
from llmchat.commands.outputs import ListedPlugin
from llmchat.output.terminal_text import fit_for
from llmchat.plugins import Offer, PluginError
from llmchat.settings import World
from llmchat.settings.types import ENGINES


def plugins(
    ctx: typer.Context,
    check: Annotated[
        bool, typer.Option("--check", help="Import each plugin; exit with code 1 if one is broken.")
    ] = False,
    json: options.Json = False,
    quiet: options.NamesOnly = False,
) -> None:
    """List what installed plugins add. LLMCHAT_NO_PLUGINS=1 switches them off."""
    from llmchat.ui import tables

    world: World = ctx.obj
    rows, faults = [], []
    for offer in room.installed():
        error = _error_of(offer, importing=check)
        faults += [error] if error else []
        rows.append(_row(offer, error, _state(ctx, offer)))
    columns = ("offers", "package", "version", "state", "summary")
    tables.rows(world, rows, columns, json=json, quiet=quiet)
    if not (rows or quiet or json):
        print("no plugins are installed", file=world.stderr)
    for error in faults:
        print(fit_for(world.stderr, f"error: {error.message}"), file=world.stderr)
    if check and faults:
        raise typer.Exit(PluginError.exit_code)


def _error_of(offer: Offer, *, importing: bool) -> PluginError | None:
    try:
        room.check(offer) if importing else room.check_name(offer)
    except PluginError as error:
        return error
    return None


def _row(offer: Offer, error: PluginError | None, state: str) -> ListedPlugin:
    return ListedPlugin(
        offers=str(offer),
        package=offer.package,
        version=offer.version,
        state="broken" if error else state,
        error=error.message if error else "",
        summary=offer.summary,
    )


def _state(ctx: typer.Context, offer: Offer) -> str:
    if room.switched_off():
        return "off"
    shown = room.find(offer.kind, offer.name) == offer
    return "on" if shown and offer.name not in _built_in(ctx, offer.kind) else "hidden"


def _built_in(ctx: typer.Context, kind: str) -> Collection[str]:
    """The names of a kind that llmchat has itself, which no plugin can replace."""
    if kind == "command":
        commands: Any = ctx.find_root().command
        return set(commands.commands)
    if kind == "slash":
        from llmchat.ui.slash.registry import registry

        return registry.built_in()
    if kind == "tools":
        from llmchat.tools.registry import BUILT_IN

        return BUILT_IN
    if kind == "exporter":
        from llmchat.history.export import EXPORTS

        return EXPORTS
    return ENGINES if kind == "engine" else ()
