"""Number the sources of a chat: the same address has the same number in every result."""

from threading import Lock
from urllib.parse import urldefrag

from msgspec import Struct

# Beyond this many, numbers begin again: a server runs for months.
MOST_SOURCES = 10_000


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
    """Hands out the numbers 1, 2, … in one chat, so that no number means two sources.

    The tools of the web number their sources with it, and front ends list them below the answer.
    """

    def __init__(self) -> None:
        self._numbered: dict[str, NumberedSource] = {}
        self._new: set[int] = set()
        self._lock = Lock()

    def number(self, source: Source) -> int:
        """The number of a source. A fragment does not make another source of a page."""
        with self._lock:
            return self._number(source)

    def _number(self, source: Source) -> int:
        key = urldefrag(source.url)[0]
        if key not in self._numbered and len(self._numbered) >= MOST_SOURCES:
            self._numbered.clear()
        numbered = NumberedSource(len(self._numbered) + 1, source.title, source.url)
        n = self._numbered.setdefault(key, numbered).n
        self._new.add(n)
        return n

    def take(self) -> tuple[NumberedSource, ...]:
        """The sources that were numbered since the last call: those of one answer."""
        taken = tuple(one for one in self._numbered.values() if one.n in self._new)
        self._new.clear()
        return taken
