"""Print text that is not part of the answer under a label: thinking, a summary."""

from llmchat.output.terminal_text import harmless
from llmchat.settings import World
from llmchat.ui import themes


class DimmedSection:
    """One section is open at a time; `finish` closes it with a blank line."""

    def __init__(self, world: World, *, plain: bool = False):
        style = (themes.PLAIN if plain else themes.current(world)).thought
        self._stream = world.stdout
        self._on, self._off = style.start, style.end
        self._label = ""
        self._last = ""

    def feed(self, label: str, text: str) -> None:
        """Print a piece under a label; an empty text prints the label alone."""
        if label != self._label:
            self.finish()
            self._label, self._last = label, "\n"
            self._write(f"[{label}]\n")
        text = harmless(text)
        if self._last == "\n":
            text = text.lstrip("\n")
        if text:
            self._last = text[-1]
            self._write(text)

    def finish(self) -> None:
        if self._label:
            self._write("\n" if self._last == "\n" else "\n\n")
        self._label = ""

    def _write(self, text: str) -> None:
        self._stream.write(f"{self._on}{text}{self._off}")
        self._stream.flush()
