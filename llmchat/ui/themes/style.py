"""A style as data: a colour, a background and attributes, and what a terminal can show of it."""

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from msgspec import Struct
from msgspec.structs import replace

from llmchat.errors import UsageError, did_you_mean

if TYPE_CHECKING:
    from rich.style import Style as RichStyle

# A number of the 256-colour palette, or `#rrggbb`.
Colour = int | str

# The 16 colours of a terminal, which its own settings change.
ANSI = (
    "black", "red", "green", "yellow", "blue", "magenta", "cyan", "white",
    "bright-black", "bright-red", "bright-green", "bright-yellow", "bright-blue",
    "bright-magenta", "bright-cyan", "bright-white",
)  # fmt: skip
_ANSI_IN_PROMPT_TOOLKIT = (
    *(f"ansi{name}" for name in ANSI[:7]), "ansigray",
    *(f"ansi{name.replace('-', '')}" for name in ANSI[8:15]), "ansiwhite",
)  # fmt: skip
# Attribute → its number in a control sequence (SGR, ECMA-48).
ATTRIBUTES = {"bold": 1, "dim": 2, "italic": 3, "underline": 4, "reverse": 7, "strike": 9}
_GREYS, _BRIGHT_BLACK, _NAMED = (0, 7, 8, 15), 8, 16
_HEX = re.compile(r"#(?:[0-9a-fA-F]{3}){1,2}")


class Style(Struct, frozen=True):
    """How a text is drawn; an empty one is the terminal's own."""

    colour: Colour | None = None
    background: Colour | None = None
    bold: bool = False
    dim: bool = False
    italic: bool = False
    underline: bool = False
    reverse: bool = False
    strike: bool = False

    @property
    def attributes(self) -> list[str]:
        return [name for name in ATTRIBUTES if getattr(self, name)]

    @property
    def start(self) -> str:
        """The control sequence that turns it on; empty for an empty style."""
        codes = [str(ATTRIBUTES[name]) for name in self.attributes]
        codes += _codes(self.colour, 30) + _codes(self.background, 40)
        return f"\x1b[{';'.join(codes)}m" if codes else ""

    @property
    def end(self) -> str:
        """The control sequence that turns it off."""
        return "\x1b[0m" if self.start else ""


def parse_style(text: str, palette: Mapping[str, Colour]) -> Style:
    """A style from words: attributes, a colour, and `on` with a background.

    palette: names of colours, which go before the 16 of the terminal. Raises UsageError.
    """
    found: dict[str, Colour | bool] = {}
    words = iter(text.split())
    for word in words:
        if word in ATTRIBUTES:
            found[word] = True
        elif word == "on":
            found["background"] = parse_colour(next(words, ""), palette)
        elif "colour" in found:
            raise UsageError(f"`{text}` has two colours", "`COLOUR on COLOUR` sets a background")
        else:
            found["colour"] = parse_colour(word, palette)
    return Style(**found)  # type: ignore[arg-type]


def parse_colour(word: str, palette: Mapping[str, Colour] | None = None) -> Colour:
    """`#rrggbb`, `#rgb`, 0 to 255, a name of the palette or of the terminal. Raises UsageError."""
    palette = palette or {}
    if word in palette:
        return palette[word]
    if word in ANSI:
        return ANSI.index(word)
    if _HEX.fullmatch(word):
        digits = word[1:].lower()
        return f"#{digits if len(digits) == 6 else ''.join(2 * digit for digit in digits)}"
    if word.isascii() and word.isdecimal() and int(word) < 256:
        return int(word)
    hint = did_you_mean(word, [*palette, *ANSI, *ATTRIBUTES])
    raise UsageError(
        f"there is no colour `{word}`",
        hint or "use #rrggbb, 0 to 255, a name of [palette], or red, green, blue …",
    )


@lru_cache(maxsize=1024)
def shown_with(style: Style, colours: int) -> Style:
    """What a terminal with so many colours (0, 8, 16, 256 or 2^24) shows of a style.

    A background that cannot be shown becomes reverse. With 16 colours or fewer greys are left out,
    because some terminals draw them in the colour of the background; a dark one becomes dim.
    """
    colour, grey = _nearest(style.colour, colours)
    background, _ = _nearest(style.background, colours)
    is_lost = style.background is not None and background is None
    return replace(
        style,
        colour=None if is_lost else colour,
        background=background,
        dim=style.dim or (grey and not is_lost),
        reverse=style.reverse or is_lost,
    )


def _nearest(colour: Colour | None, colours: int) -> tuple[Colour | None, bool]:
    """The nearest colour that can be shown, and whether dim takes its place."""
    if colour is None or colours == 0:
        return None, False
    if colours > 256 or (colours == 256 and isinstance(colour, int)):
        return colour, False
    if isinstance(colour, int) and colour < _NAMED:
        return colour % colours, False
    number = _downgraded(colour, colours)
    if colours == 256:
        return number, False
    if number in _GREYS:
        return None, number == _BRIGHT_BLACK
    return number % colours, False


def _downgraded(colour: Colour, colours: int) -> int:
    from rich.color import Color, ColorSystem

    exact = Color.from_ansi(colour) if isinstance(colour, int) else Color.parse(colour)
    system = ColorSystem.EIGHT_BIT if colours == 256 else ColorSystem.STANDARD
    return exact.downgrade(system).number or 0


def _codes(colour: Colour | None, base: int) -> list[str]:
    """The numbers of a colour in a control sequence. base: 30 for text, 40 for backgrounds."""
    if colour is None:
        return []
    if isinstance(colour, str):
        return [str(base + 8), "2", *(str(part) for part in bytes.fromhex(colour[1:]))]
    if colour >= _NAMED:
        return [str(base + 8), "5", str(colour)]
    return [str(base + colour if colour < 8 else base + 52 + colour)]


@lru_cache(maxsize=1024)
def rich_style(style: Style) -> "RichStyle":
    """The style for rich; an attribute that is off leaves that of the text around it."""
    from rich.color import Color
    from rich.style import Style as RichStyle

    def colour(one: Colour | None) -> Color | None:
        if one is None:
            return None
        return Color.from_ansi(one) if isinstance(one, int) else Color.parse(one)

    attributes: dict[str, Any] = dict.fromkeys(style.attributes, True)
    return RichStyle(color=colour(style.colour), bgcolor=colour(style.background), **attributes)


def prompt_toolkit_style(style: Style) -> str:
    """The style for prompt_toolkit: `bold fg:#008787`."""
    words = style.attributes
    if style.colour is not None:
        words.append(f"fg:{_in_prompt_toolkit(style.colour)}")
    if style.background is not None:
        words.append(f"bg:{_in_prompt_toolkit(style.background)}")
    return " ".join(words)


def _in_prompt_toolkit(colour: Colour) -> str:
    from rich.color import Color

    if isinstance(colour, str):
        return colour
    if colour < _NAMED:
        return _ANSI_IN_PROMPT_TOOLKIT[colour]
    return Color.from_ansi(colour).get_truecolor().hex
