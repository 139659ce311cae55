"""Tools that a model can call: the contract of a tool. Built-in tools, MCP servers and the web
implement it; `tools.toolbox` runs them with the user's permission.
"""

from collections.abc import Callable
from pathlib import Path
from threading import Event
from typing import Any, Protocol

from msgspec import Struct, field

from llmchat.errors import LlmchatError
from llmchat.settings import Options, World
from llmchat.tools.sources import Source, Sources

__all__ = [
    "Group",
    "Output",
    "Source",
    "Tool",
    "ToolError",
    "ToolSettings",
]


class Output(Struct, frozen=True):
    """What a tool returns.

    text: for the model. sources: cited in the text by their numbers in `ToolSettings.sources`.
    untrusted: somebody else wrote the text (a page, a file), so it must not be read as
    instructions.
    """

    text: str
    sources: tuple[Source, ...] = ()
    untrusted: bool = False


class ToolError(LlmchatError):
    """A tool could not do its work. The model and the user are told the message."""


class Tool(Protocol):
    """Something that a model can call.

    group: what turns it on: `files`, `web` or the name of an MCP server. name: as the model calls
    it, [a-zA-Z0-9_-]{1,64}, such as `files_read`. parameters: a JSON Schema of an object. origin:
    what the user's permission is bound to: "" for a built-in, for an MCP server its command line or
    URL, for a plugin its package.
    read_only: it changes nothing, so a setting may allow it without a question.
    """

    @property
    def group(self) -> str: ...

    @property
    def name(self) -> str: ...

    @property
    def origin(self) -> str: ...

    @property
    def description(self) -> str: ...

    @property
    def parameters(self) -> dict[str, Any]: ...

    @property
    def read_only(self) -> bool: ...

    def run(self, arguments: dict[str, Any], stop: Event) -> Output:
        """Do the work, in any thread. Raises ToolError.

        arguments: valid by `parameters`. stop: set when the user interrupts or the time is over;
        the tool then returns or raises within a second and leaves no process behind.
        """
        ...


class ToolSettings(Struct, frozen=True):
    """What the tools of a session are made with.

    root: the folder that `files` may read. sources: numbers the sources of the chat.
    """

    world: World
    root: Path = Path()
    options: Options = Options()
    sources: Sources = field(default_factory=Sources)


# What makes the tools of a group; raises LlmchatError where they cannot work here.
Group = Callable[[ToolSettings], "list[Tool]"]
