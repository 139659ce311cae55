"""Open the tools that the options name, with the permissions that go with them."""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec.structs import replace

from llmchat.errors import UsageError
from llmchat.settings import Options, Settings, World
from llmchat.tools import Tool, ToolSettings
from llmchat.tools.permission import Ask, Permissions, check_names, matches
from llmchat.tools.registry import groups, tools_of
from llmchat.tools.sources import Sources
from llmchat.tools.toolbox import Toolbox

if TYPE_CHECKING:
    from llmchat.tools.mcp import McpServers, Server

# Gets the names of the servers that are waited for.
Progress = Callable[[tuple[str, ...]], None]


def permission_file(world: World) -> Path:
    """Where permanent permissions are kept."""
    return world.config / "allowed-tools.toml"


def tool_settings(world: World, options: Options, sources: Sources | None = None) -> ToolSettings:
    """What tools are made with. Raises UsageError if the root is not a folder."""
    root = Path(options.root).expanduser()
    if not root.is_dir():
        raise UsageError(f"{options.root} is not a folder", "--root names the folder for `files`")
    return ToolSettings(world, root.resolve(), options, sources or Sources())


@contextmanager
def open_toolbox(
    world: World,
    settings: Settings,
    ask: Ask | None = None,
    progress: Progress | None = None,
) -> Iterator[Toolbox]:
    """The tools that the options name, and all tools of the servers in --mcp files.

    ask: asks the user for permission; None where nobody can be asked. Then permanent ones do not
    count either: in a pipe only what was named runs. MCP servers end with the block.
    """
    options = settings.options
    permissions = Permissions(permission_file(world) if ask else None, options.allow, ask)
    with ExitStack() as stack:
        made = _Maker(world, options, stack, progress)
        box = Toolbox(
            [], permissions, make=made.turn_on, max_rounds=options.max_rounds, sources=made.sources
        )
        names = [*options.tool, *made.servers_of_flags]
        made.start(names)
        for name in names:
            box.turn_on(name)
        _check_allowed(options.allow, box.tools, by_flag=settings.origins["allow"] == "flag")
        yield box


class _Maker:
    """Makes the tools that a name means, and starts the servers behind them."""

    def __init__(self, world: World, options: Options, stack: ExitStack, progress: Progress | None):
        self._world, self._stack, self._progress = world, stack, progress
        self._options = options
        self.sources = Sources()
        self._files = options.mcp
        self._servers = _servers(world, options.mcp)
        self._started = dict[str, "McpServers"]()

    @property
    def servers_of_flags(self) -> list[str]:
        """The servers of --mcp files, which are on from the start."""
        own = str(self._world.config / "mcp.json")
        return [
            name
            for name, server in self._servers.items()
            if server.file != own and not server.disabled
        ]

    def turn_on(self, box: Toolbox, name: str) -> None:
        """Add the tools of a name to a toolbox. Raises UsageError for an unknown name."""
        if self._is_server(name):
            self._connect(box, name)
        else:
            settings = tool_settings(self._world, self._options, self.sources)
            box.add(tools_of([name], settings))

    def start(self, names: Sequence[str]) -> None:
        """Begin to start the servers among the names, so that they start at the same time."""
        for name in dict.fromkeys(names):
            if self._is_server(name):
                self._started[name] = self._start(name, ())

    def _is_server(self, name: str) -> bool:
        return name in self._servers and name not in groups()

    def _start(self, name: str, taken: Collection[str]) -> "McpServers":
        from llmchat.tools.mcp import connect

        # A server that is named starts even if its file disables it.
        server = replace(self._servers[name], disabled=False)
        servers = connect({name: server}, self._world, taken=taken)
        return self._stack.enter_context(servers)

    def _connect(self, box: Toolbox, name: str) -> None:
        taken = [tool.name for tool in box.tools]
        servers = self._started.pop(name, None) or self._start(name, taken)
        servers.wait(self._progress)
        box.add_source(lambda: servers.tools, servers.take_notes)


def _servers(world: World, flags: Sequence[str]) -> "Mapping[str, Server]":
    if not flags and not (world.config / "mcp.json").is_file():
        return {}
    from llmchat.tools.mcp import load_servers

    return load_servers(world, flags)


def _check_allowed(names: Collection[str], tools: Sequence[Tool], *, by_flag: bool) -> None:
    """A flag must name a tool in use. A setting applies to every chat, so it may allow only
    built-in tools that change nothing.
    """
    if by_flag:
        return check_names(names, tools)
    for tool in tools:
        risky = not tool.read_only or tool.origin
        if risky and any(matches(name, tool) for name in names):
            raise UsageError(
                f"a setting cannot allow `{tool.name}`, which is not a read-only built-in tool",
                f"--allow {tool.name} allows it for one command",
            )
    return None
