"""An answer as plain text, and the choice between that and Markdown. Loads no terminal library: pipes are to answer at once."""

import re
from typing import Protocol, TextIO

from llmchat.settings import World

# A model, or a file it quotes, must not move the cursor, ring, or fill the clipboard: on a terminal only line ends and tabs pass.
# Bidirectional overrides and isolates show text in another order than it has; line separators are line ends.
_BIDI = (*range(0x202A, 0x202F), *range(0x2066, 0x206A))
HARMFUL: dict[int, str | None] = {
    **{code: None for code in (*range(32), *range(127, 160), *_BIDI) if chr(code) not in "\n\t"},
    0x2028: "\n",
    0x2029: "\n",
}


_RAW = re.compile("[" + "".join(re.escape(chr(code)) for code in HARMFUL if code > 31) + "]")


def harmless(text: str) -> str:
    """The text without what could drive or deceive a terminal."""
    return text.translate(HARMFUL)


def fit_for(stream: TextIO, text: str) -> str:
    """What others wrote (a chat, a title, a file name, a server), as it may go to a stream: exact for a pipe or a file, harmless for a
    terminal."""
    return harmless(text) if stream.isatty() else text


def json_for(stream: TextIO, text: str) -> str:
    """JSON, in which a terminal gets as an escape what would be harmful as it is; the values stay the same."""
    return _RAW.sub(lambda match: f"\\u{ord(match[0]):04x}", text) if stream.isatty() else text


class Renderer(Protocol):
    """Takes an answer piece by piece; `finish` leaves the cursor on a new line."""

    def feed(self, text: str) -> None: ...

    def finish(self) -> None: ...


def has_styles(world: World, stream: TextIO | None = None) -> bool:
    """Whether stdout, or another stream, is a terminal that shows bold and dim."""
    return (stream or world.stdout).isatty() and world.env.get("TERM") != "dumb"


def has_colours(world: World, stream: TextIO | None = None) -> bool:
    """NO_COLOR drops colours alone, not the other styles."""
    return has_styles(world, stream) and not world.env.get("NO_COLOR")


def has_palette(world: World) -> bool:
    """Whether the terminal says that it knows 256 colours."""
    return "256color" in world.env.get("TERM", "") or bool(world.env.get("COLORTERM"))


def choose_renderer(world: World, *, plain: bool = False, first: int = 0) -> Renderer:
    """Markdown on a terminal that can show it, plain text everywhere else. `first` is the number of the first code block, or none."""
    if plain or not has_styles(world):
        return PlainRenderer(world.stdout)
    from llmchat.ui.hyperlinks import has_hyperlinks
    from llmchat.ui.markdown import Look
    from llmchat.ui.render import MarkdownRenderer

    return MarkdownRenderer(
        world.stdout,
        look=Look(has_colours(world), has_hyperlinks(world.env), first, has_palette(world)),
    )


class PlainRenderer:
    """The text itself, flushed as it comes; not one control character is added."""

    def __init__(self, stream: TextIO):
        self._stream = stream
        self._at_line_start = True

    def feed(self, text: str) -> None:
        text = fit_for(self._stream, text)
        self._stream.write(text)
        self._stream.flush()
        self._at_line_start = text.endswith("\n") if text else self._at_line_start

    def finish(self) -> None:
        if not self._at_line_start:
            self._stream.write("\n")
        self._stream.flush()
