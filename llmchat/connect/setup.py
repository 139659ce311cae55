"""The settings of a client, ready to be printed or written: contents and paths of its files."""

import json
import shlex
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from llmchat.connect.clients import PLACEHOLDER, Client, ConfigFile, Values, filled
from llmchat.connect.merge import rendered, with_defaults
from llmchat.settings import World


class Part(Struct, frozen=True):
    """The settings for one file of a client, and its text if it is new.

    path: None for a text that belongs into no file of the client.
    """

    file: ConfigFile
    path: Path | None
    text: str
    settings: Any = None


def parts(client: Client, values: Values, world: World) -> list[Part]:
    """The files of a client, filled in."""
    known = msgspec.structs.asdict(values)
    return [_part(file, known, world) for file in client.files]


def _part(file: ConfigFile, known: Mapping[str, Any], world: World) -> Part:
    if file.text:
        return Part(file, None, _as_program(file, known))
    settings = filled(file.settings, known)
    text = rendered(with_defaults(settings, file, {}), file.kind)
    return Part(file, _place(file, world), text, settings)


def _as_program(file: ConfigFile, known: Mapping[str, Any]) -> str:
    """The text with each value as a literal of its language."""
    literal = _LITERALS[file.kind]
    return PLACEHOLDER.sub(lambda found: literal(str(known[found[1]])), file.text)


_LITERALS: dict[str, Callable[[str], str]] = {"python": json.dumps, "shell": shlex.quote}


def _place(file: ConfigFile, world: World) -> Path:
    """Where the file is on this platform, in the home of this world."""
    path = file.path.get(sys.platform) or file.path["other"]
    if folder := world.env.get(file.variable):
        return Path(folder) / Path(path).name
    return Path(path.replace("{config}", str(world.config_home)).replace("~", str(world.home), 1))
