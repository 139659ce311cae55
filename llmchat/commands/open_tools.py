"""The tools of a chat on the command line, and who is asked for permission."""

from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, TextIO

from llmchat.settings import Settings, World

if TYPE_CHECKING:
    from llmchat.tools.toolbox import Toolbox


def open_tools(
    world: World, settings: Settings, stream: TextIO | None = None, *, quiet: bool = False
) -> "AbstractContextManager[Toolbox]":
    """The tools that the options name. Only a person at a terminal is asked for permission.

    stream: where the question is printed, by default stdout.
    """
    from llmchat.tools.opening import open_toolbox
    from llmchat.ui.permission_prompt import asker

    ask = asker(world, lambda: world.columns, stream) if world.interactive else None
    return open_toolbox(world, settings, ask, _Waiting(world, shown=not quiet))


class _Waiting:
    """Says once, on a terminal's stderr, which servers are waited for."""

    def __init__(self, world: World, *, shown: bool):
        self._world = world
        self._shown = shown and world.stderr.isatty()

    def __call__(self, names: tuple[str, ...]) -> None:
        if self._shown:
            print(f"starting {', '.join(names)} …", file=self._world.stderr, flush=True)
        self._shown = False


def print_tools(world: World) -> None:
    """List the tools that --tool can name."""
    from llmchat.tools import ToolSettings
    from llmchat.tools.registry import all_tools
    from llmchat.tools.toolbox import first_line

    tools, faults = all_tools(ToolSettings(world))
    for tool in tools:
        print(f"{tool.name:16} {first_line(tool.description)}", file=world.stdout)
    for fault in faults:
        print(f"note: {fault.message}", file=world.stderr)


def print_notes(tools: "Toolbox", world: World) -> None:
    """Print what servers reported, on stderr."""
    for note in tools.take_notes():
        print(f"note: {note}", file=world.stderr)
