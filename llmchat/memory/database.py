"""The SQLite file of an index: its tables, its transactions, and its errors in one line."""

import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from llmchat.errors import IntegrityError, LlmchatError, OutOfResources, UsageError
from llmchat.settings import private_file

VERSION = 1
_BUSY_SECONDS = 30.0
# `words` holds the index of words only: texts are in `passages`.
_SCHEMA = """
CREATE TABLE facts (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE roots (source TEXT PRIMARY KEY, excluded INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE documents (
    id INTEGER PRIMARY KEY, source TEXT NOT NULL UNIQUE, hash TEXT NOT NULL,
    modified INTEGER NOT NULL, size INTEGER NOT NULL, title TEXT NOT NULL, passages INTEGER NOT NULL
);
CREATE TABLE passages (
    id INTEGER PRIMARY KEY, document INTEGER NOT NULL REFERENCES documents (id),
    start INTEGER NOT NULL, end INTEGER NOT NULL, heading TEXT NOT NULL, text TEXT NOT NULL
);
CREATE INDEX passages_of_document ON passages (document);
CREATE TABLE vectors (passage INTEGER PRIMARY KEY, vector BLOB NOT NULL);
CREATE VIRTUAL TABLE words USING fts5 (
    heading, text, content = '', tokenize = 'porter unicode61 remove_diacritics 2'
);
"""


class Database:
    """The database at `path`; a new file gets the tables if `create` is set."""

    def __init__(self, path: Path, create: bool):
        self.path = path
        if create:
            _make(path)
        elif not path.is_file():
            raise UsageError(f"there is no index {path}")
        with explained(path):
            self.connection = sqlite3.connect(path, timeout=_BUSY_SECONDS, isolation_level=None)
            try:
                self._prepare()
            except BaseException:
                self.connection.close()
                raise

    def _prepare(self) -> None:
        _write_ahead(self.connection)
        # In WAL mode, NORMAL survives the death of the process at any moment.
        self.connection.execute("PRAGMA synchronous = NORMAL")
        version = self._version()
        if version == 0:
            with self.transaction():
                # Another process may have made the tables meanwhile.
                if self._version() == 0:
                    for statement in _SCHEMA.split(";"):
                        self.connection.execute(statement)
                    self.connection.execute(f"PRAGMA user_version = {VERSION}")
        elif version > VERSION:
            raise UsageError(
                f"{self.path} was written by a later llmchat (format {version})", "update llmchat"
            )

    def _version(self) -> int:
        return int(self.connection.execute("PRAGMA user_version").fetchone()[0])

    def changes(self) -> int:
        """A number that differs after another connection has written."""
        return int(self.rows("PRAGMA data_version")[0][0])

    def close(self) -> None:
        self.connection.close()

    def execute(self, query: str, values: Any = ()) -> sqlite3.Cursor:
        """Run a statement within a transaction."""
        return self.connection.execute(query, values)

    def rows(self, query: str, values: Any = ()) -> list[Any]:
        with explained(self.path):
            return self.connection.execute(query, values).fetchall()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Apply everything that happens within, or nothing."""
        with explained(self.path):
            self.connection.execute("BEGIN IMMEDIATE")
            try:
                yield
                self.connection.execute("COMMIT")
            except BaseException:
                # A full disk has rolled back by itself.
                if self.connection.in_transaction:
                    self.connection.execute("ROLLBACK")
                raise


def _make(path: Path) -> None:
    try:
        private_file(path)
    except OSError as error:
        raise LlmchatError(f"{path} cannot be opened: {error.strerror}") from error


def _write_ahead(database: sqlite3.Connection) -> None:
    """Switch to WAL mode; SQLite does not wait while another process does the same."""
    until = time.monotonic() + _BUSY_SECONDS
    while True:
        try:
            database.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > until:
                raise
            time.sleep(0.01)


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turn SQLite errors into LlmchatErrors whose hints say what to do."""
    try:
        yield
    except sqlite3.OperationalError as error:
        raise _operational(path, str(error)) from error
    except sqlite3.DatabaseError as error:
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        if code in (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT):
            raise IntegrityError(
                f"{path} is not a readable index: {error}",
                "delete it with `llmchat index rm`, and add its documents again",
            ) from error
        raise LlmchatError(f"{path}: {error}", "this is a bug in llmchat") from error


def _operational(path: Path, reason: str) -> LlmchatError:
    if "full" in reason:
        return OutOfResources(
            f"the disk is full; {path} could not be written",
            "what was added before is safe; free some space and run the command again",
        )
    if "locked" in reason:
        return LlmchatError(
            f"another program is writing to {path}", "wait for it to end, and try again"
        )
    if "readonly" in reason:
        return LlmchatError(f"{path} is read-only", "change its permissions")
    return LlmchatError(f"{path}: {reason}")
