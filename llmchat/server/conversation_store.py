"""The web page's conversations on disk, for `serve --history`: one JSON value for each of them.

A conversation belongs to the user who wrote it: the holder of an API key, or the user who runs the
server. A write names the version it replaces, so two windows cannot overwrite each other.
"""

import contextlib
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType

from msgspec import Struct

from llmchat.errors import IntegrityError
from llmchat.server.errors import Refusal
from llmchat.settings import private_file

# Limits for each user, so that a faulty page cannot fill the disk.
MAX_CONVERSATIONS = 2000
MAX_BYTES = 256_000_000
_SCHEMA_VERSION = 3
_TABLE = """
CREATE TABLE conversations (
    user    TEXT NOT NULL,
    id      TEXT NOT NULL,
    title   TEXT NOT NULL,
    -- Seconds since 1970, by the server's clock.
    updated REAL NOT NULL,
    version INTEGER NOT NULL,
    bytes   INTEGER NOT NULL,
    -- The bytes that the page sent.
    value   BLOB NOT NULL,
    pinned  INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (user, id)
) WITHOUT ROWID;
"""
_ONE = "WHERE user = ? AND id = ?"


class VersionConflict(Refusal):
    """The stored conversation is not the version that this write would replace."""

    status = 412

    def __init__(self) -> None:
        super().__init__("another window changed this conversation", code="version_conflict")


class StorageFull(Refusal):
    status = 507


class ConversationNotFound(Refusal):
    status = 404

    def __init__(self) -> None:
        super().__init__("no such conversation", code="not_found")


class ConversationSummary(Struct, frozen=True):
    """An entry of the list. updated: milliseconds since 1970, the page's unit."""

    id: str
    title: str
    updated: float
    version: int
    pinned: bool = False


class ConversationStore:
    """The SQLite file at `path`; any thread may use it. A method returns once its changes are
    committed."""

    def __init__(
        self,
        path: Path,
        *,
        max_conversations: int = MAX_CONVERSATIONS,
        max_bytes: int = MAX_BYTES,
        renamed_users: Mapping[str, str] = MappingProxyType({}),
        now: Callable[[], float] = time.time,
    ):
        """renamed_users: new identifiers for the users of a file of schema version 1."""
        private_file(path)
        self._renamed_users = renamed_users
        self._now = now
        self._max_conversations, self._max_bytes = max_conversations, max_bytes
        self._lock = threading.Lock()
        self._database = sqlite3.connect(
            path, timeout=10.0, isolation_level=None, check_same_thread=False
        )
        try:
            self._database.execute("PRAGMA journal_mode = WAL")
            self._database.execute("PRAGMA synchronous = NORMAL")
            self._migrate(path)
        except sqlite3.DatabaseError as error:
            self._database.close()
            raise IntegrityError(f"cannot read {path}: {error}") from error

    def _migrate(self, path: Path) -> None:
        with self._transaction() as database:
            (version,) = database.execute("PRAGMA user_version").fetchone()
            if version > _SCHEMA_VERSION:
                raise IntegrityError(f"{path} was written by a newer version of llmchat")
            if version == 0:
                database.execute(_TABLE)
            if version == 1:
                rename = "UPDATE OR IGNORE conversations SET user = ? WHERE user = ?"
                for old, new in self._renamed_users.items():
                    database.execute(rename, (new, old))
            if version in (1, 2):
                column = "pinned INTEGER NOT NULL DEFAULT 0"
                database.execute(f"ALTER TABLE conversations ADD COLUMN {column}")
            if version < _SCHEMA_VERSION:
                database.execute(f"PRAGMA user_version = {_SCHEMA_VERSION}")

    def close(self) -> None:
        with self._lock:
            self._database.close()

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            try:
                self._database.execute("BEGIN IMMEDIATE")
                yield self._database
                self._database.execute("COMMIT")
            except sqlite3.OperationalError as error:
                raise StorageFull(f"the server cannot store the conversation: {error}") from error
            finally:
                if self._database.in_transaction:
                    self._database.execute("ROLLBACK")

    def list(self, user: str) -> list[ConversationSummary]:
        """The latest first."""
        columns = "id, title, updated, version, pinned"
        query = f"SELECT {columns} FROM conversations WHERE user = ? ORDER BY updated DESC, id"
        with self._lock:
            rows = self._database.execute(query, (user,)).fetchall()
        return [
            ConversationSummary(id, title, 1000 * updated, version, bool(pinned))
            for id, title, updated, version, pinned in rows
        ]

    def get(self, user: str, id: str) -> tuple[int, bytes]:
        """The version and the value. Raises ConversationNotFound."""
        query = f"SELECT version, value FROM conversations {_ONE}"
        with self._lock:
            row = self._database.execute(query, (user, id)).fetchone()
        if row is None:
            raise ConversationNotFound
        return row[0], row[1]

    def put(
        self, user: str, id: str, title: str, value: bytes, replaces: int, pinned: bool = False
    ) -> int:
        """Replace version `replaces`, 0 for a new conversation; returns the new version.

        Raises VersionConflict, ConversationNotFound or StorageFull.
        """
        query = f"SELECT version, bytes FROM conversations {_ONE}"
        insert = "INSERT OR REPLACE INTO conversations VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
        with self._transaction() as database:
            row = database.execute(query, (user, id)).fetchone()
            if row is None and replaces:
                raise ConversationNotFound
            if row is not None and row[0] != replaces:
                raise VersionConflict
            self._check_limits(user, None if row is None else row[1], len(value))
            version, size = replaces + 1, len(value)
            database.execute(insert, (user, id, title, self._now(), version, size, value, pinned))
        return version

    def remove(self, user: str, id: str) -> None:
        """Raises ConversationNotFound."""
        with self._transaction() as database:
            if not database.execute(f"DELETE FROM conversations {_ONE}", (user, id)).rowcount:
                raise ConversationNotFound

    def _check_limits(self, user: str, old_size: int | None, new_size: int) -> None:
        """old_size: of the replaced conversation, None for a new one. Raises StorageFull."""
        query = "SELECT count(*), coalesce(sum(bytes), 0) FROM conversations WHERE user = ?"
        count, total = self._database.execute(query, (user,)).fetchone()
        if old_size is None and count >= self._max_conversations:
            raise StorageFull(
                f"the server stores at most {self._max_conversations:,} conversations; delete some"
            )
        if total - (old_size or 0) + new_size > self._max_bytes:
            megabytes = self._max_bytes / 1e6
            raise StorageFull(
                f"the conversations would take more than {megabytes:,.0f} MB; delete some"
            )
