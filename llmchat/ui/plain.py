"""An answer as plain text, and the choice between that and Markdown.

Loads no terminal library, because pipes must start at once.
"""

from typing import Protocol, TextIO

from llmchat.settings import World
from llmchat.terminal_text import fit_for, has_colours, has_palette, has_styles


class Renderer(Protocol):
    """Takes an answer piece by piece; `finish` leaves the cursor on a new line."""

    def feed(self, text: str) -> None: ...

    def finish(self) -> None: ...


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
