"""Number the sources of an answer: the same address has the same number in every result."""

from urllib.parse import urldefrag

from msgspec import Struct


class Source(Struct, frozen=True):
    """Where a part of an output comes from."""

    title: str
    url: str


class NumberedSource(Struct, frozen=True):
    """A source with the number that texts cite as [n]."""

    n: int
    title: str
    url: str


class Sources:
    """Hands out the numbers 1, 2, … for as long as one answer with its calls takes.

    The tools of the web number their sources with it, and who runs them lists them at the end.
    """

    def __init__(self) -> None:
        self._numbered: dict[str, NumberedSource] = {}

    def number(self, source: Source) -> int:
        """The number of a source. A fragment does not make another source of a page."""
        key = urldefrag(source.url)[0]
        numbered = NumberedSource(len(self._numbered) + 1, source.title, source.url)
        return self._numbered.setdefault(key, numbered).n

    def listed(self) -> tuple[NumberedSource, ...]:
        """All sources so far, by number."""
        return tuple(self._numbered.values())

    def restart(self) -> None:
        """Begin at 1 again, for the next answer."""
        self._numbered.clear()
