"""The world of a test: its own home, streams in memory, and PATH as the only real variable."""

import io
import os
from collections.abc import Callable
from pathlib import Path

from llmchat.settings import World

MakeWorld = Callable[..., World]


class Stream(io.StringIO):
    """A text stream that says whether it is a terminal."""

    def __init__(self, text: str = "", tty: bool = False):
        super().__init__(text)
        self.tty = tty

    def isatty(self) -> bool:
        return self.tty


def make_world(home: Path, stdin: str = "", tty: bool = False, **env: str) -> World:
    """A world under `home`, with PATH and the given variables as its whole environment."""
    return World(
        config=home / "config",
        data=home / "data",
        state=home / "state",
        cache=home / "cache",
        env={"PATH": os.environ["PATH"], "HOME": str(home), **env},
        stdin=Stream(stdin, tty),
        stdout=Stream(tty=tty),
        stderr=Stream(tty=tty),
    )
