"""Long pastes: a short label in the prompt line, the full text in the message."""

from collections.abc import Callable

from prompt_toolkit.history import History

from llmchat.output.formatting import counted

# A paste of this many lines or characters is shown by its size.
_LINES, _CHARACTERS = 10, 2_000
# Counting the tokens of a longer paste would block the prompt line.
_COUNTED = 500_000


class Pastes:
    """The pastes of the current line. count: tokens of a text, None while the model loads."""

    def __init__(self, count: Callable[[str], int | None] = lambda text: None):
        self._count = count
        self._texts: dict[str, str] = {}

    def shorten(self, text: str) -> str:
        """Return a short paste unchanged, and the label of a long one."""
        text = text.replace("\r\n", "\n").replace("\r", "\n")
        if text.count("\n") < _LINES and len(text) < _CHARACTERS:
            return text
        label = self._label(text)
        self._texts[label] = text
        return label

    def expand(self, line: str) -> str:
        """Replace every label in a line by its text."""
        for label, text in self._texts.items():
            line = line.replace(label, text)
        return line

    def forget(self) -> None:
        self._texts.clear()

    def _label(self, text: str) -> str:
        lines = len(text.rstrip("\n").split("\n"))
        tokens = self._count(text) if len(text) <= _COUNTED else None
        length = counted(len(text), "character") if tokens is None else counted(tokens, "token")
        size = f"{counted(lines, 'line')}, {length}"
        label, number = f"[{size}]", 2
        while self._texts.get(label, text) != text:
            label, number = f"[{size} #{number}]", number + 1
        return label


class ExpandedHistory(History):
    """A history of lines with their pastes expanded, so that a recalled line is complete."""

    def __init__(self, inner: History, pastes: Pastes):
        super().__init__()
        self._inner = inner
        self._pastes = pastes

    def load_history_strings(self) -> list[str]:  # type: ignore[override]
        return list(self._inner.load_history_strings())

    def store_string(self, string: str) -> None:
        self._inner.store_string(string)

    def append_string(self, string: str) -> None:
        super().append_string(self._pastes.expand(string))
