"""An answer as plain text, and the choice between that and Markdown. Loads no terminal library: pipes are to answer at once."""

from typing import Protocol, TextIO

from llmchat.settings import World

# A model, or a file it quotes, must not move the cursor, ring, or fill the clipboard: on a terminal only line ends and tabs pass.
HARMFUL = {code: None for code in (*range(32), *range(127, 160)) if chr(code) not in "\n\t"}


class Renderer(Protocol):
    """Takes an answer piece by piece; `finish` leaves the cursor on a new line."""

    def feed(self, text: str) -> None: ...

    def finish(self) -> None: ...


def choose_renderer(world: World, *, plain: bool = False) -> Renderer:
    """Markdown on a terminal that can show it, plain text everywhere else."""
    if plain or not world.stdout.isatty() or world.env.get("TERM") == "dumb" or world.env.get("NO_COLOR"):
        return PlainRenderer(world.stdout)
    from llmchat.ui.render import MarkdownRenderer

    return MarkdownRenderer(world.stdout)


class PlainRenderer:
    """The text itself, flushed as it comes; not one control character is added."""

    def __init__(self, stream: TextIO):
        self._stream = stream
        self._at_line_start = True

    def feed(self, text: str) -> None:
        text = text.translate(HARMFUL) if self._stream.isatty() else text
        self._stream.write(text)
        self._stream.flush()
        self._at_line_start = text.endswith("\n") if text else self._at_line_start

    def finish(self) -> None:
        if not self._at_line_start:
            self._stream.write("\n")
        self._stream.flush()
