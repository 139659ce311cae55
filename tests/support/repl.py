"""A REPL over a scripted model, driven line by line without a terminal."""

from pathlib import Path

from msgspec.structs import replace

from llmchat.chat import Chat
from llmchat.engines import Sampling
from llmchat.engines.scripted import ScriptedEngine
from llmchat.history import History
from llmchat.models.opener import ModelOpener
from llmchat.presets import Preset, find, get_format
from llmchat.ui.repl import Repl
from support.worlds import make_world


def preset(**changes: object) -> Preset:
    return replace(
        find("smollm2"),
        format=get_format("chatml"),
        engine="scripted",
        sampling=Sampling(temperature=0.0),
        **changes,
    )


OWN_PRESET = """
format = "chatml"
engine = "scripted"
parameters = {parameters}
[base]
kind = "path"
repo = "/nowhere"
[sampling]
temperature = 0.25
"""


def make_repl(home: Path) -> Repl:
    """A REPL with three scripted answers, and a preset `other` to switch to."""
    world = make_world(home)
    world.own_presets.mkdir(parents=True)
    (world.own_presets / "other.toml").write_text(OWN_PRESET.format(parameters=1000))
    chat = Chat(preset(), ScriptedEngine(["one", "two", "three"]), History(None))
    return Repl(chat, world, ModelOpener(world, {"weights": "bf16"}))


def type_in(repl: Repl, *lines: str) -> str:
    """Take the lines and return what was shown since."""
    stream = repl.state.world.stdout
    before = len(stream.getvalue())  # type: ignore[attr-defined]
    for line in lines:
        repl.take(line)
    return stream.getvalue()[before:]  # type: ignore[attr-defined, no-any-return]


def said(repl: Repl) -> list[str]:
    return [message.text for message in repl.state.chat.conversation.messages]
