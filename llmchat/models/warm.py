"""A model that is ready to answer, and the history beside it. Loads little: a one-shot that finds its model in a server answers at once."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from llmchat.background.client import socket_file
from llmchat.errors import LlmchatError
from llmchat.presets import Preset, is_preset, opening_of, preset_for
from llmchat.settings import Options, Settings, World, resolve

if TYPE_CHECKING:
    from llmchat.engines import Engine
    from llmchat.history import History, Session

# Engines whose models a server can have in memory.
_LOADED = ("transformers", "gguf")
# What decides where checkpoints are looked for, beside the cache folder.
_PLACES = ("HOME", "XDG_CACHE_HOME", "HF_HOME", "HF_HUB_CACHE")


class Opened(Struct, frozen=True):
    """A preset with its engine, and what its answers are made of. opens: the options that open the same model again."""

    preset: Preset
    engine: "Engine"
    made_by: dict[str, Any]
    opens: dict[str, Any] = {}


def open_warm(
    world: World, flags: Mapping[str, Any], opens: Mapping[str, Any] | None = None
) -> Opened | None:
    """The model of a command line, or of a session, in a server of this user that runs already.

    None where there is none, or it cannot stand in.
    """
    if not socket_file(world).exists():
        return None
    from llmchat.background.engine import BackgroundEngine

    options = resolve(world, flags, opens).options
    preset = preset_for(options, world.own_presets)
    if preset.engine not in _LOADED:
        return None
    loading = Options(
        adapter=options.adapter, device=options.device, trust_remote_code=options.trust_remote_code
    )
    try:
        engine = BackgroundEngine(world, preset, loading, places(world))
    except (OSError, LlmchatError):
        return None
    return Opened(
        engine.facts.preset, engine, engine.facts.made_by, opening_of(options, world.own_presets)
    )


def places(world: World) -> tuple[str, ...]:
    """Where a world has its models: two programs for which this is the same open the same files."""
    return (str(world.cache), *(world.env.get(name, "") for name in _PLACES))


def opening_of_session(session: "Session", world: World) -> dict[str, Any] | None:
    """The options that open a session's model; None for a chat that was imported with the name of a model that is no preset here."""
    if session.opens:
        return dict(session.opens)
    # Only a preset: the file must not name a folder, or a repository, to be opened.
    if session.imported and not is_preset(session.model, world.own_presets):
        return None
    return {"model": session.model}


def not_here(session: "Session", instead: str) -> str:
    """What a person is told of such a chat."""
    return f"the chat was imported and names no model of this machine; it continues with {instead}"


def open_history(world: World, settings: Settings) -> "History":
    from llmchat.history import History

    return History(None if settings.options.no_log else world.history_file, world.now)
