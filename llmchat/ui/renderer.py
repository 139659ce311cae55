"""Renderers print an answer piece by piece: as plain text here, as Markdown in markdown_renderer.

Loads no terminal library before a terminal needs one, because pipes must start at once.
"""

from typing import Protocol, TextIO

from llmchat.output.terminal_text import fit_for, has_styles
from llmchat.settings import World


class Renderer(Protocol):
    """Prints the pieces of one answer; `finish` leaves the cursor on a new line."""

    def feed(self, text: str) -> None: ...

    def finish(self) -> None: ...


def choose_renderer(world: World, *, plain: bool = False, first: int = 0) -> Renderer:
    """Markdown on a terminal that can show it, plain text everywhere else.

    first: the number of the answer's first code block; 0 numbers none.
    """
    if plain or not has_styles(world):
        return PlainRenderer(world.stdout)
    from llmchat.ui import themes
    from llmchat.ui.hyperlinks import has_hyperlinks
    from llmchat.ui.markdown import MarkdownOptions
    from llmchat.ui.markdown_renderer import MarkdownRenderer

    options = MarkdownOptions(themes.current(world), has_hyperlinks(world.env), first)
    return MarkdownRenderer(world.stdout, options=options)


class PlainRenderer:
    """Prints the text itself, flushed piece by piece; adds no control characters."""

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
