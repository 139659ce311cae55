"""Filters for text that arrives in pieces: stop strings, thinking marks, escapes.

Text that could be the start of a mark is held back until the next piece decides.
"""

from collections.abc import Sequence


class StopFilter:
    """Returns the text that is safe to show. After a stop string `stopped` is true, `stop` is that
    string, and no more text follows.
    """

    def __init__(self, stops: Sequence[str]):
        self._stops = tuple(stop for stop in stops if stop)
        self._held = ""
        self.stopped = False
        self.stop = ""

    def feed(self, text: str) -> str:
        if self.stopped:
            return ""
        text = self._held + text
        # The stop string that is complete first ends the answer, however the text was cut.
        starts = {stop: text.find(stop) for stop in self._stops if stop in text}
        if starts:
            self.stopped, self._held = True, ""
            self.stop = min(starts, key=lambda stop: (starts[stop] + len(stop), starts[stop]))
            return text[: starts[self.stop]]
        safe = len(text) - begun(text, self._stops)
        self._held = text[safe:]
        return text[:safe]

    def flush(self) -> str:
        """The text that was held back, at the end of the answer."""
        text, self._held = self._held, ""
        return text


class Unescape:
    """Replaces marks in a stream of text, wherever the pieces were cut: for models that write a
    line end as the two characters \\n.
    """

    def __init__(self, replacements: Sequence[tuple[str, str]]):
        self._replacements = replacements
        self._marks = tuple(old for old, _ in replacements)
        self._held = ""

    def feed(self, text: str) -> str:
        text = self._held + text
        for old, new in self._replacements:
            text = text.replace(old, new)
        safe = len(text) - begun(text, self._marks)
        self._held = text[safe:]
        return text[:safe]

    def flush(self) -> str:
        """The text that was held back, at the end of the answer."""
        text, self._held = self._held, ""
        return text


class ThoughtFilter:
    """Separates the thoughts of a model, between two marks, from its answer. The marks are removed.

    inside: the stream begins within a thought.
    """

    def __init__(self, marks: tuple[str, str], *, inside: bool = False):
        self._marks = marks
        self._inside = inside
        self._held = ""

    def feed(self, text: str) -> list[tuple[bool, str]]:
        """Pairs (whether it is a thought, text), in order, none of them empty."""
        parts, text = [], self._held + text
        while (start := text.find(self._mark)) >= 0:
            parts.append((self._inside, text[:start]))
            text = text[start + len(self._mark) :]
            self._inside = not self._inside
        keep = begun(text, (self._mark,))
        self._held = text[len(text) - keep :]
        parts.append((self._inside, text[: len(text) - keep]))
        return [part for part in parts if part[1]]

    def flush(self) -> list[tuple[bool, str]]:
        """The text that was held back, at the end of the answer."""
        text, self._held = self._held, ""
        return [(self._inside, text)] if text else []

    @property
    def _mark(self) -> str:
        return self._marks[self._inside]


def begun(text: str, marks: Sequence[str]) -> int:
    """The length of the longest end of `text` that one of the marks starts with."""
    longest = min(len(text), max(map(len, marks), default=1) - 1)
    for size in range(longest, 0, -1):
        if any(mark.startswith(text[-size:]) for mark in marks):
            return size
    return 0
