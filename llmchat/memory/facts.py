"""Facts of a person, kept from chat to chat in a small SQLite file of their own.

They are apart from documents and from chats: nothing but this file holds them, and SQLite
overwrites what is removed. A missing file is an empty memory.
"""

import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Self

from msgspec import Struct

from llmchat.errors import UsageError
from llmchat.settings import World
from llmchat.sqlite_file import Advice, explained, make_private

LONGEST = 500
_ADVICE = Advice(
    holds="memory",
    full="what was kept before is safe; free some space",
    locked="close the other program",
    readonly="change its permissions",
    damaged="move the file away to start a new one",
)
_BUSY_SECONDS = 10.0
_SCHEMA = """
CREATE TABLE IF NOT EXISTS facts (
    -- AUTOINCREMENT: the number of a fact that is gone never names another.
    id      INTEGER PRIMARY KEY AUTOINCREMENT,
    text    TEXT NOT NULL UNIQUE,
    created REAL NOT NULL
)
"""


class Fact(Struct, frozen=True):
    """Something that is worth knowing in every chat."""

    id: int
    """Its number; never used again for another fact."""
    text: str
    """The fact, one line."""
    created: float
    """Seconds since 1970."""


class Facts:
    """The facts in the file at `path`, oldest first. Every call reads or writes the file."""

    def __init__(self, path: Path, now: Callable[[], float] = time.time):
        self.path = path
        self._now = now

    @classmethod
    def of(cls, world: World) -> Self:
        """The facts of a user."""
        return cls(world.data / "memory.sqlite", world.now)

    def all(self) -> list[Fact]:
        if not self.path.exists():
            return []
        with self._opened() as database:
            rows = database.execute("SELECT id, text, created FROM facts ORDER BY id")
            return [Fact(*row) for row in rows]

    def add(self, text: str) -> Fact:
        """Keep a fact; one that is known already stays as it is. Returns it."""
        line = one_line(text)
        self._run("INSERT OR IGNORE INTO facts(text, created) VALUES (?, ?)", (line, self._now()))
        return next(fact for fact in self.all() if fact.text == line)

    def edit(self, number: int, text: str) -> Fact:
        """Replace the text of a fact. Raises UsageError for an unknown number."""
        fact, line = self.find(number), one_line(text)
        if any(other.text == line for other in self.all() if other != fact):
            raise UsageError(f"`{line}` is known already", f"`llmchat memory rm {number}` removes")
        self._run("UPDATE facts SET text = ? WHERE id = ?", (line, number))
        return self.find(number)

    def remove(self, *numbers: int) -> list[Fact]:
        """Remove facts, all or none; returns them. Raises UsageError for an unknown number."""
        found = [self.find(number) for number in dict.fromkeys(numbers)]
        for fact in found:
            self._run("DELETE FROM facts WHERE id = ?", (fact.id,))
        return found

    def find(self, number: int) -> Fact:
        for fact in self.all():
            if fact.id == number:
                return fact
        raise UsageError(f"there is no fact {number}", "`llmchat memory list` numbers them")

    def search(self, words: str, limit: int = 10) -> list[Fact]:
        """The facts with the most of these words, then the newest; without words the newest."""
        wanted = set(words.casefold().split())
        scored = [(_common(fact.text, wanted), fact.id, fact) for fact in self.all()]
        best = sorted(scored, key=lambda one: one[:2], reverse=True)
        return [fact for score, _, fact in best if score or not wanted][:limit]

    def _run(self, query: str, values: Sequence[object]) -> None:
        with self._opened() as database:
            database.execute(query, values)

    @contextmanager
    def _opened(self) -> Iterator[sqlite3.Connection]:
        make_private(self.path, _ADVICE)
        with explained(self.path, _ADVICE):
            connection = sqlite3.connect(
                self.path, timeout=_BUSY_SECONDS, isolation_level=None, cached_statements=0
            )
            with closing(connection):
                connection.execute("PRAGMA secure_delete = ON")
                connection.execute(_SCHEMA)
                yield connection


def one_line(text: str) -> str:
    """A fact as it is kept: one line. Raises UsageError if it is empty or too long."""
    line = " ".join("".join(char if char.isprintable() else " " for char in text).split())
    if not line:
        raise UsageError("the fact is empty", "`/remember I live in Graz`")
    if len(line) > LONGEST:
        raise UsageError(
            f"the fact has {len(line):,} characters; at most {LONGEST:,} are kept",
            "a long text is a document: -f FILE attaches it, `llmchat index add` keeps it",
        )
    return line


def _common(text: str, wanted: set[str]) -> int:
    """How many of the words a text contains, also within its own words."""
    folded = text.casefold()
    return sum(word.strip(".,;:!?\"'()") in folded for word in wanted)
