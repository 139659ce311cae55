"""The theme for what prompt_toolkit draws: the prompt line, its menus and its lists."""

from functools import lru_cache

from prompt_toolkit.output import ColorDepth
from prompt_toolkit.styles import Style

from llmchat.output.terminal_text import TRUE_COLOUR, colours_of
from llmchat.settings import World
from llmchat.ui import themes
from llmchat.ui.themes import Theme
from llmchat.ui.themes.style import prompt_toolkit_style

_DEPTHS = {
    0: ColorDepth.DEPTH_1_BIT,
    8: ColorDepth.DEPTH_4_BIT,
    16: ColorDepth.DEPTH_4_BIT,
    256: ColorDepth.DEPTH_8_BIT,
    TRUE_COLOUR: ColorDepth.DEPTH_24_BIT,
}
_MENU = "completion-menu"
# Classes of prompt_toolkit and our own → roles of a theme.
_CLASSES = {
    "prompt": "prompt",
    "bottom-toolbar": "status",
    _MENU: "menu",
    f"{_MENU}.completion": "menu",
    f"{_MENU}.completion.current": "selected",
    f"{_MENU}.meta.completion": "menu_meta",
    f"{_MENU}.meta.completion.current": "selected",
    f"{_MENU}.multi-column-meta": "menu_meta",
    "scrollbar": "note",
    "note": "note",
    "rule": "rule",
    "selected": "selected",
    "match": "match",
}
# Drops the library's own style.
_BARE = "noreverse fg:default bg:default"


def depth_of(world: World) -> ColorDepth:
    """The colours that prompt_toolkit may use."""
    return _DEPTHS[colours_of(world)]


def style_of(world: World) -> Style:
    """The style sheet of the theme that the terminal has now."""
    return _sheet(themes.current(world))


@lru_cache(maxsize=8)
def _sheet(theme: Theme) -> Style:
    return Style(
        [
            (name, f"{_BARE} {prompt_toolkit_style(getattr(theme, role))}".strip())
            for name, role in _CLASSES.items()
        ]
    )
