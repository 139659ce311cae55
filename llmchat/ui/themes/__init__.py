"""Themes of the terminal: the colours of everything that llmchat draws, one TOML file each.

`current` is the theme of a world's terminal, with the colours that the terminal can show; `use`
chooses another one. Themes set no background: `background` says which one they are made for.
"""

from llmchat.ui.themes.choice import PLAIN, current, use
from llmchat.ui.themes.files import find_theme, names
from llmchat.ui.themes.style import Style
from llmchat.ui.themes.theme import ROLES, Theme, at_depth

__all__ = [
    "PLAIN",
    "ROLES",
    "Style",
    "Theme",
    "at_depth",
    "current",
    "find_theme",
    "names",
    "use",
]
