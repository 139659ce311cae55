"""Which theme a terminal has, and which of its colours the terminal can show."""

from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import TextIO

from llmchat.errors import LlmchatError
from llmchat.output.terminal_text import colours_of, has_styles
from llmchat.settings import World, resolve
from llmchat.ui.themes.files import DEFAULT, find_theme
from llmchat.ui.themes.theme import Theme, at_depth

# What a pipe and a terminal without styles get.
PLAIN = Theme()


def use(world: World, name: str) -> Theme:
    """Draw with a theme from now on; its file is read again. Raises UsageError."""
    _read.cache_clear()
    theme = _read(name, world.own_themes)
    world.screen.theme = name
    return theme


def current(world: World, stream: TextIO | None = None) -> Theme:
    """The theme of a terminal, with the colours that it can show.

    stream: by default stdout. Before `use` it is the theme of the settings; an invalid one is the
    default, since errors must be printed in any case.
    """
    if not has_styles(world, stream):
        return PLAIN
    name = world.screen.theme or _configured(world)
    try:
        theme = _read(name, world.own_themes)
    except LlmchatError:
        theme = _read(DEFAULT, None)
    return at_depth(theme, colours_of(world, stream))


def _configured(world: World) -> str:
    with suppress(LlmchatError):
        return resolve(world, {}).options.theme
    return DEFAULT


@lru_cache(maxsize=32)
def _read(name: str, own: Path | None) -> Theme:
    return find_theme(name, own)
