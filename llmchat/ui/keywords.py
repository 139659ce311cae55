"""Keywords of a typed message: `@web question`, `@file path`, `@time`."""

import re
from threading import Event

from llmchat.settings import World
from llmchat.tools.clock import Clock

_WEB = re.compile(r"@web\s+(?=\S)")
_FILE = re.compile(r"(?<!\S)@file\s+(?=\S)")
_TIME = re.compile(r"(?<!\S)@time(?!\w)")


def command_of(line: str) -> str:
    """The slash command that a line with a keyword means; other lines unchanged."""
    match = _WEB.match(line)
    return f"/web {line[match.end() :]}" if match else line


def with_mentions(text: str) -> str:
    """`@file notes.txt` written as the mention `@notes.txt`."""
    return _FILE.sub("@", text)


def time_of(text: str, world: World) -> str | None:
    """The date and time, if a message asks for it with `@time`."""
    if not _TIME.search(text):
        return None
    return Clock(world).run({}, Event()).text
