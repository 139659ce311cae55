"""A model that is ready to answer, and the quickest way to one: the user's background server.

Imports little, so that a one-shot question that finds its model there is answered at once.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from llmchat.background.client import socket_file
from llmchat.errors import LlmchatError
from llmchat.models.structures import check_structure
from llmchat.presets import Preset, preset_for, reopen_options
from llmchat.settings import Options, World, resolve

if TYPE_CHECKING:
    from llmchat.engines import Engine

# Engines whose models the server can have in memory.
_SERVED_ENGINES = ("transformers", "gguf", "auto")
# Variables that decide where checkpoints are, in addition to the cache folder.
_FOLDER_VARIABLES = ("HOME", "XDG_CACHE_HOME", "HF_HOME", "HF_HUB_CACHE", "OLLAMA_MODELS")


class OpenModel(Struct, frozen=True):
    """A preset with its engine.

    made_by: what its answers are made of, see `provenance`. opens: options that open it again.
    """

    preset: Preset
    engine: "Engine"
    made_by: dict[str, Any]
    opens: dict[str, Any] = {}


def open_in_background(
    world: World, flags: Mapping[str, Any], opens: Mapping[str, Any] | None = None
) -> OpenModel | None:
    """The model of a command line, or of a session, in the user's background server.

    None if no server runs, or if it cannot open this model.
    """
    if not socket_file(world).exists():
        return None
    from llmchat.background.engine import BackgroundEngine

    options = resolve(world, flags, opens).options
    preset = preset_for(options, world.own_presets)
    if preset.engine not in _SERVED_ENGINES:
        return None
    check_structure(preset.sampling.structure, preset.engine)
    loading = Options(
        adapter=options.adapter, device=options.device, trust_remote_code=options.trust_remote_code
    )
    try:
        engine = BackgroundEngine(world, preset, loading, model_folders(world))
    except (OSError, LlmchatError):
        return None
    facts = engine.facts
    return OpenModel(
        facts.preset, engine, facts.made_by, reopen_options(options, world.own_presets)
    )


def model_folders(world: World) -> tuple[str, ...]:
    """What decides where a world's models are: two worlds with equal values open the same files."""
    return (str(world.cache), *(world.env.get(name, "") for name in _FOLDER_VARIABLES))
