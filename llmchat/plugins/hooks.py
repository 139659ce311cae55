"""The hooks of plugins, as pluggy knows them.

A plugin implements the hook of each kind that its entry points name:

    from llmchat.plugins.hooks import hookimpl

    @hookimpl
    def exporter():
        return to_org

An implementation takes only the arguments that it needs, so a hook can get new ones. `name` is the
entry point's name without its kind. A hook is called when what it makes is used, and not before.
"""

from typing import Any

from pluggy import HookimplMarker, HookspecMarker

hookspec = HookspecMarker("llmchat")
hookimpl = HookimplMarker("llmchat")


@hookspec(firstresult=True)
def command(name: str) -> Any:
    """The command `llmchat NAME`: a function with the annotations of Typer, or a Typer app.

    The World is in `ctx.obj` of a `typer.Context`.
    """


@hookspec(firstresult=True)
def slash(name: str) -> Any:
    """The slash command /NAME, a `llmchat.ui.slash.Command`."""


@hookspec(firstresult=True)
def tools(name: str, settings: Any) -> Any:
    """The tools of the group NAME, see `llmchat.tools.Tool`. settings: a ToolSettings."""


@hookspec(firstresult=True)
def engine(name: str, model: Any, options: Any) -> Any:
    """An engine, see `llmchat.engines.Engine`, with a model in memory.

    model: a `llmchat.models.locate.Model`; its `base` is None if its files are not on this machine.
    options: a `llmchat.settings.Options`.
    """


@hookspec(firstresult=True)
def presets(name: str) -> Any:
    """The path of a folder of presets, `*.toml`, and of prompt formats, `formats/*.toml`."""


@hookspec(firstresult=True)
def data(name: str, argument: str) -> Any:
    """The rows of the source `NAME:ARGUMENT` of training data: dicts, in any known format."""


@hookspec(firstresult=True)
def embedder(name: str) -> Any:
    """An embedder, see `llmchat.memory.types.Embedder`, whose `name` is NAME."""


@hookspec(firstresult=True)
def exporter(name: str) -> Any:
    """A function from a Session and its Records (`llmchat.history.types`) to a text."""
