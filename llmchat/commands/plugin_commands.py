"""The commands that plugins add: listed from their metadata, imported when they are called."""

from collections.abc import Collection, Sequence
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup
from typer.main import get_command

from llmchat import plugins
from llmchat.commands.panels import arranged
from llmchat.plugins import Offer

_PANEL = "Commands of plugins"


class WithPlugins(TyperGroup):
    """The commands of llmchat, and those of plugins that have another name."""

    def __init__(self, **settings: Any):
        super().__init__(**settings)
        self.commands = arranged(self.commands)

    def words(self, arguments: Sequence[str]) -> Collection[str]:
        """The names that a command line can begin with.

        Plugins are looked for only where the first word is not one of llmchat's own commands.
        """
        first = next(iter(arguments), "-")
        if first in self.commands or first.startswith("-") or " " in first:
            return self.commands
        return self.list_commands(None)

    def list_commands(self, ctx: Any) -> list[str]:
        added = [name for name in plugins.names("command") if name not in self.commands]
        return [*self.commands, *added]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        if cmd_name in self.commands:
            return self.commands[cmd_name]
        offer = plugins.find("command", cmd_name)
        return _Later(offer) if offer else None


class _Later(TyperCommand):
    """A command as its metadata describe it, until its arguments are read."""

    def __init__(self, offer: Offer):
        super().__init__(offer.name, help=offer.summary, rich_help_panel=_PANEL)
        self._offer = offer

    def make_context(
        self, info_name: str | None, args: list[str], parent: Any = None, **extra: Any
    ) -> Any:
        return _imported(self._offer).make_context(info_name, args, parent, **extra)


def _imported(offer: Offer) -> Any:
    """The command itself. Raises PluginError."""
    made = plugins.make(offer)
    app = typer.Typer(add_completion=False)
    # With a callback, a group of one command stays a group.
    app.callback()(lambda: None)
    with plugins.faults(offer):
        if isinstance(made, typer.Typer):
            app.add_typer(made, name=offer.name)
        else:
            app.command(offer.name)(made)
        return get_command(app).commands[offer.name]  # type: ignore[attr-defined]
