"""`llmchat chat` with a preset on the scripted engine."""

from pathlib import Path
from typing import Any

from llmchat import cli
from support.worlds import make_world

_PRESET = """
format = "{format}"
engine = "scripted"
parameters = 1
[base]
kind = "path"
repo = "/nowhere"
"""


def run_chat(
    home: Path, *arguments: str, stdin: str = "", format: str = "chatml"
) -> tuple[int, str, str]:
    """The exit code, stdout and stderr."""
    world = make_world(home, stdin)
    world.own_presets.mkdir(parents=True, exist_ok=True)
    (world.own_presets / "demo.toml").write_text(_PRESET.format(format=format))
    code = cli.main(["chat", "-m", "demo", *arguments], world)
    streams: Any = world
    return code, streams.stdout.getvalue(), streams.stderr.getvalue()
