"""The options of `llmchat serve`, and what follows from them: the key file and the host names."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from llmchat.errors import UsageError
from llmchat.server import local_peer
from llmchat.server.keys import Keys
from llmchat.server.roles import ServedRole
from llmchat.settings import Settings, World, resolve

LOOPBACK = ("127.0.0.1", "::1", "localhost")


class ServeOptions(Struct, frozen=True):
    """memory: bytes for all models together, 0 for a fraction of the free memory.

    keep_alive_s: how long an idle model stays loaded, None for the default: forever for the models
    in `models`, five minutes for others. idle_s: shut down after this long without a request, 0 for
    never. grace_s: for running answers when the server shuts down. history: store the web page's
    conversations on the server. names: more host names to accept. tools: settings of the tools that
    clients may run, None for no tools. docs: the indexes that requests may search. roles: the
    served ones, by the names of their models.
    """

    models: tuple[str, ...] = ()
    adapters: Mapping[str, Path] = {}
    host: str = "127.0.0.1"
    port: int = 8000
    slots: int = 16
    queue: int = 64
    memory: int = 0
    keep_alive_s: float | None = None
    timeout_s: float = 600.0
    grace_s: float = 30.0
    idle_s: float = 0.0
    rate: int = 0
    max_body: int = 4_000_000
    body_timeout_s: float = 60.0
    key_file: Path | None = None
    cors: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    trim: bool = False
    log_prompts: bool = False
    history: bool = False
    tools: Settings | None = None
    docs: tuple[str, ...] = ()
    roles: Mapping[str, ServedRole] = {}


def tool_settings(
    world: World,
    tools: Sequence[str],
    mcp: Sequence[str],
    allow: Sequence[str],
    flags: Mapping[str, Any],
) -> Settings | None:
    """What the tools are made with; None without any. Variables and the config file turn on no tool
    of a server. Raises UsageError for flags without effect.
    """
    if not tools and not mcp:
        _refuse_alone(allow, flags)
        return None
    found = resolve(world, {**flags, "tool": tools, "mcp": mcp, "allow": allow})
    own = replace(found.options, tool=tuple(tools), mcp=tuple(mcp), allow=tuple(allow))
    return Settings(own, found.origins | {"allow": "flag"})


def _refuse_alone(allow: Sequence[str], flags: Mapping[str, Any]) -> None:
    given = [name for name, value in {**flags, "allow": allow or None}.items() if value is not None]
    if given:
        raise UsageError(
            f"--{given[0].replace('_', '-')} has no effect without --tools or --mcp",
            "`--tools NAME` lets clients run a tool",
        )


def key_file(world: World, options: ServeOptions) -> Path:
    return options.key_file or world.config / "keys.json"


def check_access(options: ServeOptions, keys: Keys) -> None:
    """Raises UsageError if these options would let strangers in."""
    if options.history and not local_peer.SUPPORTED and not keys.all():
        raise UsageError(
            "on this system, --history requires an API key to tell the users of this machine apart",
            "`llmchat serve keys add NAME` creates a key; "
            "without --history, conversations stay in the browser",
        )
    if options.tools and not local_peer.SUPPORTED and not keys.all():
        raise UsageError(
            "on this system, --tools requires an API key to tell the users of this machine apart",
            "`llmchat serve keys add NAME` creates a key",
        )
    if options.docs and not local_peer.SUPPORTED and not keys.all():
        raise UsageError(
            "on this system, --docs requires an API key to tell the users of this machine apart",
            "`llmchat serve keys add NAME` creates a key",
        )
    if options.host not in LOOPBACK and not keys.all():
        raise UsageError(
            f"{options.host} is reachable from other machines, and there is no API key",
            "`llmchat serve keys add NAME` creates one; "
            "without --host, only this machine can connect",
        )


def answers_without_key(options: ServeOptions, keys: Keys) -> bool:
    """Whether the server starts without requiring a key: on loopback, if no key exists.

    A key file that cannot be read counts as having keys.
    """
    try:
        return options.host in LOOPBACK and not keys.all()
    except UsageError:
        return False


def host_names(options: ServeOptions) -> frozenset[str] | None:
    """The accepted host names; None for all, if other machines can connect: they need a key, and
    the server may have any name in their network."""
    if options.host not in LOOPBACK and not options.names:
        return None
    names = (name.lower() for name in options.names)
    return frozenset({"localhost", "127.0.0.1", "[::1]", options.host, *names})
