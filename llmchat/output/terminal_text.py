"""Make text from models, servers and files safe to print, and ask what a terminal can display.

Does not render anything; loads no terminal library, because pipes must start at once.
"""

import re
from typing import TextIO

from llmchat.settings import World

# Only line ends and tabs reach a terminal: other control characters could move the cursor, ring
# the bell or fill the clipboard. Bidirectional overrides and isolates would reorder the text.
_BIDI = (*range(0x202A, 0x202F), *range(0x2066, 0x206A))
_CONTROL = tuple(code for code in (*range(32), *range(127, 160), *_BIDI) if chr(code) not in "\n\t")
# Line and paragraph separators become line ends.
HARMFUL: dict[int, str | None] = {
    **dict.fromkeys(_CONTROL, None),
    0x2028: "\n",
    0x2029: "\n",
}
_EXCERPT = 60
# JSON encoders already escape the control characters below 32.
_UNESCAPED = re.compile("[" + "".join(re.escape(chr(code)) for code in HARMFUL if code > 31) + "]")


def harmless(text: str) -> str:
    """Remove the characters that could control a terminal or disguise the text on it."""
    return text.translate(HARMFUL)


def excerpt(text: str) -> str:
    """Text from others as part of a message: at most 60 characters, all of them printable."""
    clean = "".join(letter if letter.isprintable() else "\ufffd" for letter in text[: _EXCERPT + 1])
    return clean if len(clean) <= _EXCERPT else f"{clean[:_EXCERPT]}…"


def fit_for(stream: TextIO, text: str) -> str:
    """Return text from others (a chat, a title, a server) as it may be written to a stream.

    A terminal gets harmless text; a pipe or a file gets the text unchanged.
    """
    return harmless(text) if stream.isatty() else text


def json_for(stream: TextIO, text: str) -> str:
    """Escape characters in JSON that a terminal would obey; the decoded values are the same."""
    if not stream.isatty():
        return text
    return _UNESCAPED.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


def has_styles(world: World, stream: TextIO | None = None) -> bool:
    """Whether stdout, or the given stream, is a terminal that can show bold and dim text."""
    return (stream or world.stdout).isatty() and world.env.get("TERM") != "dumb"


def has_colours(world: World, stream: TextIO | None = None) -> bool:
    """Whether colours may be used: NO_COLOR turns off colours but not bold and dim."""
    return has_styles(world, stream) and not world.env.get("NO_COLOR")


# What a terminal can show where it declares any colour.
TRUE_COLOUR = 2**24


def colours_of(world: World, stream: TextIO | None = None) -> int:
    """How many colours the terminal declares: 0, 8, 16, 256 or 2^24."""
    term, colorterm = world.env.get("TERM", ""), world.env.get("COLORTERM", "")
    if not has_colours(world, stream) or term.startswith("vt"):
        return 0
    is_direct = colorterm in ("truecolor", "24bit") or term.endswith("-direct")
    if is_direct or world.env.get("WT_SESSION"):
        return TRUE_COLOUR
    if "256color" in term or colorterm:
        return 256
    return 16 if "16color" in term else 8
