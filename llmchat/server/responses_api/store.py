"""Stored responses, each with its whole conversation.

Each response keeps the whole conversation, so that it can be continued whatever becomes of the
responses before it. A response belongs to the user who asked for it. The store forgets a user's
oldest responses when there is no room for a new one.
"""

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from llmchat.sqlite_file import Advice, SqliteFile, explained, make_private

# Limits for each user.
MAX_RESPONSES = 2000
MAX_BYTES = 64_000_000
_ADVICE = Advice(
    "store of responses",
    "free some space",
    "try again in a moment",
    "make it writable, or serve without --history",
    "move it away; the server makes a new one",
)
_TABLES = """
CREATE TABLE IF NOT EXISTS responses (
    user     TEXT NOT NULL,
    id       TEXT NOT NULL,
    number   INTEGER PRIMARY KEY,
    bytes    INTEGER NOT NULL,
    -- Of the items, the first that this request brought, and the first of the answer.
    asked    INTEGER NOT NULL,
    answered INTEGER NOT NULL,
    response BLOB NOT NULL,
    items    BLOB NOT NULL,
    UNIQUE (user, id)
);
CREATE INDEX IF NOT EXISTS sizes ON responses (user, number, bytes);
-- Which response has an item.
CREATE TABLE IF NOT EXISTS items (
    user     TEXT NOT NULL,
    id       TEXT NOT NULL,
    response TEXT NOT NULL,
    PRIMARY KEY (user, id)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS of_response ON items (user, response);
"""
Item = dict[str, Any]


class StoredResponse(Struct, frozen=True):
    """response: as it was sent. items: of the whole conversation. asked: the index of the first
    item of its request; answered: of its answer."""

    response: dict[str, Any]
    items: list[Item]
    asked: int
    answered: int


class ResponseStore:
    """The SQLite file at `path`, or memory; any thread may use it."""

    def __init__(
        self,
        path: Path | None = None,
        *,
        max_responses: int = MAX_RESPONSES,
        max_bytes: int = MAX_BYTES,
    ):
        if path is not None:
            make_private(path, _ADVICE)
        self._max_responses, self._max_bytes = max_responses, max_bytes
        self._lock = threading.Lock()
        self._file = SqliteFile(path, _ADVICE, 10.0, any_thread=True)
        with explained(path, _ADVICE):
            if path is not None:
                self._file.write_ahead()
            # What was deleted must not stay readable in the file.
            self._file.execute("PRAGMA secure_delete = ON")
            self._file.connection.executescript(_TABLES)

    def close(self) -> None:
        with self._lock:
            self._file.close()

    def put(self, user: str, stored: StoredResponse) -> bool:
        """Store a response; returns whether there was room for it."""
        response, items = map(msgspec.json.encode, (stored.response, stored.items))
        size, id = len(response) + len(items), stored.response["id"]
        if size > self._max_bytes:
            return False
        own = [(user, item["id"], id) for item in stored.items[stored.asked :] if "id" in item]
        with self._lock, self._file.transaction():
            self._make_room(user, size)
            self._file.execute(
                "INSERT INTO responses (user, id, bytes, asked, answered, response, items) "
                "VALUES (?, ?, ?, ?, ?, ?, ?)",
                (user, id, size, stored.asked, stored.answered, response, items),
            )
            self._file.connection.executemany("INSERT OR REPLACE INTO items VALUES (?, ?, ?)", own)
        return True

    def _make_room(self, user: str, size: int) -> None:
        """Remove the oldest responses of a user."""
        totals = "SELECT count(*), coalesce(sum(bytes), 0) FROM responses WHERE user = ?"
        count, total = self._file.execute(totals, (user,)).fetchone()
        oldest = "SELECT id, bytes FROM responses WHERE user = ? ORDER BY number"
        for id, bytes in self._file.execute(oldest, (user,)).fetchall():
            if count < self._max_responses and total + size <= self._max_bytes:
                return
            self._forget(user, id)
            count, total = count - 1, total - bytes

    def _forget(self, user: str, id: str) -> bool:
        self._file.execute("DELETE FROM items WHERE user = ? AND response = ?", (user, id))
        query = "DELETE FROM responses WHERE user = ? AND id = ?"
        return self._file.execute(query, (user, id)).rowcount > 0

    def get(self, user: str, id: str) -> StoredResponse | None:
        query = "SELECT response, items, asked, answered FROM responses WHERE user = ? AND id = ?"
        with self._lock:
            rows = self._file.rows(query, (user, id))
        decode = msgspec.json.decode
        return next(
            (StoredResponse(decode(one), decode(items), *rest) for one, items, *rest in rows), None
        )

    def items(self, user: str, ids: Sequence[str]) -> dict[str, Item]:
        """The items of stored responses with these ids; those that are not stored are missing."""
        found: dict[str, Item] = {}
        query = "SELECT response FROM items WHERE user = ? AND id = ?"
        for id in ids:
            with self._lock:
                rows = self._file.rows(query, (user, id)) if id not in found else []
            stored = self.get(user, rows[0][0]) if rows else None
            found |= {item["id"]: item for item in stored.items if "id" in item} if stored else {}
        return {id: found[id] for id in ids if id in found}

    def remove(self, user: str, id: str) -> bool:
        """Remove a response; returns whether it existed."""
        with self._lock, self._file.transaction():
            return self._forget(user, id)
