"""Chats of the Python API whose model answers with given texts."""

from pathlib import Path
from typing import Any

from msgspec.structs import replace

from llmchat.api.chat import Chat
from llmchat.api.forms import form_of
from llmchat.api.opening import Opening
from llmchat.api.shared_model import SharedModel
from llmchat.engines import Sampling
from llmchat.engines.scripted import ScriptedEngine
from llmchat.models.open_model import OpenModel
from llmchat.presets import find, get_format
from llmchat.settings import World
from support.worlds import make_world

_PRESET = replace(find("smollm2"), format=get_format("chatml"), sampling=Sampling())
PRESET_FILE = """
format = "chatml"
engine = "scripted"
parameters = 1
[base]
kind = "path"
repo = "/nowhere"
"""


def scripted(
    home: Path,
    *replies: str,
    tools: Any = (),
    schema: Any = None,
    save: bool = False,
    confirm: Any = None,
    **more: Any,
) -> Chat[Any]:
    """A chat as `open` makes it, on a scripted engine. more: options."""
    opening = Opening(make_world(home), more, list(tools), confirm, save=save)
    engine = ScriptedEngine(replies, context=4096)
    opened = OpenModel(_PRESET, engine, {"model": "scripted"}, {"model": "demo"})
    return opening.chat(SharedModel(opened), form_of(schema))


def engine_of(chat: Chat[Any]) -> ScriptedEngine:
    return chat._model.opened.engine  # type: ignore[return-value]


def with_demo(world: World) -> World:
    """The world with a preset `demo`, whose engine quotes the question."""
    world.own_presets.mkdir(parents=True, exist_ok=True)
    (world.own_presets / "demo.toml").write_text(PRESET_FILE)
    return world
