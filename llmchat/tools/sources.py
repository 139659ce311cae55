"""Number the sources of a chat: the same address has the same number in every result.

A passage of a document is a source of its own: its place is a part of its address.
"""

from threading import Lock
from urllib.parse import urldefrag

from msgspec import Struct

# Beyond this many, numbers begin again: a server runs for months.
MOST_SOURCES = 10_000


class Source(Struct, frozen=True):
    """Where a part of an output comes from. place: of a passage, within its document."""

    title: str
    url: str
    place: "Place | None" = None


class Place(Struct, frozen=True):
    """A passage of a document: its characters, its text, and how well it fits the question."""

    start: int
    end: int
    score: float
    text: str


class NumberedSource(Struct, frozen=True, omit_defaults=True):
    """A source with the number that texts cite as [n]."""

    n: int
    title: str
    url: str
    place: Place | None = None


_Key = tuple[str, int, int]


class Sources:
    """Hands out the numbers 1, 2, … in one chat, so that no number means two sources.

    The tools of the web number their sources with it, and front ends list them below the answer.
    """

    def __init__(self) -> None:
        self._numbered: dict[_Key, NumberedSource] = {}
        self._new: set[int] = set()
        self._lock = Lock()

    def number(self, source: Source) -> int:
        """The number of a source. A fragment does not make another source of a page."""
        with self._lock:
            return self._number(source)

    def _number(self, source: Source) -> int:
        key = _key(source)
        if key not in self._numbered and len(self._numbered) >= MOST_SOURCES:
            self._numbered.clear()
        known = self._numbered.get(key)
        n = known.n if known else 1 + max((one.n for one in self._numbered.values()), default=0)
        # A passage has another score for each question.
        if known is None or source.place:
            self._numbered[key] = NumberedSource(n, source.title, source.url, source.place)
        self._new.add(n)
        return n

    def know(self, n: int, source: Source) -> None:
        """Keep a number that an earlier message of the chat gave, unless it is taken."""
        with self._lock:
            if all(one.n != n for one in self._numbered.values()):
                numbered = NumberedSource(n, source.title, source.url, source.place)
                self._numbered.setdefault(_key(source), numbered)

    def take(self) -> tuple[NumberedSource, ...]:
        """The sources that were numbered since the last call: those of one answer."""
        taken = tuple(one for one in self._numbered.values() if one.n in self._new)
        self._new.clear()
        return taken


def _key(source: Source) -> _Key:
    place = source.place
    if place:
        return source.url, place.start, place.end
    return urldefrag(source.url)[0], -1, -1
