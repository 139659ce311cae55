"""Marks in a stream of text (stop strings, thoughts, escapes): what might be the start of one is held back until it is known."""

from collections.abc import Sequence


class StopFilter:
    """Feed it text as it comes; it returns what is safe to show. After a stop string `stopped` is true and nothing more comes."""

    def __init__(self, stops: Sequence[str]):
        self._stops = tuple(stop for stop in stops if stop)
        self._held = ""
        self.stopped = False

    def feed(self, text: str) -> str:
        if self.stopped:
            return ""
        text = self._held + text
        # The one that is whole first ends the answer, so that the result does not depend on how the text was cut into pieces.
        found = [
            (start + len(stop), start) for stop in self._stops if (start := text.find(stop)) >= 0
        ]
        if found:
            self.stopped, self._held = True, ""
            return text[: min(found)[1]]
        safe = len(text) - _begun(text, self._stops)
        self._held = text[safe:]
        return text[:safe]

    def flush(self) -> str:
        """What was held back and has turned out to be no stop string, because the text is at its end."""
        text, self._held = self._held, ""
        return text


class Unescape:
    """Replacements in a stream of text, whole wherever the pieces were cut: for models that write a line end as the two characters \\n."""

    def __init__(self, replacements: Sequence[tuple[str, str]]):
        self._replacements = replacements
        self._marks = tuple(old for old, _ in replacements)
        self._held = ""

    def feed(self, text: str) -> str:
        text = self._held + text
        for old, new in self._replacements:
            text = text.replace(old, new)
        safe = len(text) - _begun(text, self._marks)
        self._held = text[safe:]
        return text[:safe]

    def flush(self) -> str:
        """What was held back because it could have been the start of a mark, and was none."""
        text, self._held = self._held, ""
        return text


class ThoughtFilter:
    """Parts a stream into what a model thinks, between two marks, and what it says. Marks may be cut anywhere; they are not shown."""

    def __init__(self, marks: tuple[str, str], *, inside: bool = False):
        self._marks = marks
        self._inside = inside
        self._held = ""

    def feed(self, text: str) -> list[tuple[bool, str]]:
        """(whether it is thought, text) pairs, in order, none of them empty."""
        parts, text = [], self._held + text
        while (start := text.find(self._mark)) >= 0:
            parts.append((self._inside, text[:start]))
            text = text[start + len(self._mark) :]
            self._inside = not self._inside
        keep = _begun(text, (self._mark,))
        self._held = text[len(text) - keep :]
        parts.append((self._inside, text[: len(text) - keep]))
        return [part for part in parts if part[1]]

    def flush(self) -> list[tuple[bool, str]]:
        """What was held back because it could have been a mark, and was none."""
        text, self._held = self._held, ""
        return [(self._inside, text)] if text else []

    @property
    def _mark(self) -> str:
        return self._marks[self._inside]


def _begun(text: str, marks: Sequence[str]) -> int:
    """Length of the longest end of `text` that begins one of the marks."""
    longest = min(len(text), max(map(len, marks), default=1) - 1)
    return next(
        (
            size
            for size in range(longest, 0, -1)
            if any(mark.startswith(text[-size:]) for mark in marks)
        ),
        0,
    )
