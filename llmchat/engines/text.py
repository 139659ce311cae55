"""Stop strings in a stream of text: what might be the start of one is held back, what is one never gets out."""

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
        found = [(start + len(stop), start) for stop in self._stops if (start := text.find(stop)) >= 0]
        if found:
            self.stopped, self._held = True, ""
            return text[: min(found)[1]]
        safe = len(text) - self._unsafe(text)
        self._held = text[safe:]
        return text[:safe]

    def flush(self) -> str:
        """What was held back and has turned out to be no stop string, because the text is at its end."""
        text, self._held = self._held, ""
        return text

    def _unsafe(self, text: str) -> int:
        """Length of the longest end of `text` that begins a stop string."""
        longest = min(len(text), max(map(len, self._stops), default=1) - 1)
        return next((size for size in range(longest, 0, -1) if any(stop.startswith(text[-size:]) for stop in self._stops)), 0)
