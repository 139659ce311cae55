"""Open the SQLite file of the history, run transactions, and turn SQLite errors into ours."""

import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from llmchat.errors import IntegrityError, LlmchatError, OutOfResources
from llmchat.history.migrations import migrate
from llmchat.settings import private_file

_BUSY_SECONDS = 10.0


class Database:
    """The database at `path`, migrated to the current schema; None keeps it in memory."""

    def __init__(self, path: Path | None):
        self.path = path
        if path:
            make_private(path)
        self.connection = sqlite3.connect(
            path or ":memory:", timeout=_BUSY_SECONDS, isolation_level=None
        )
        self.connection.row_factory = sqlite3.Row
        try:
            with explained(path):
                _write_ahead(self.connection)
                # In WAL mode, NORMAL survives the death of the process at any moment; only a power
                # failure may lose the last commits.
                self.connection.execute("PRAGMA synchronous = NORMAL")
                self.connection.execute("PRAGMA foreign_keys = ON")
                migrate(self.connection)
        except LlmchatError:
            self.connection.close()
            raise

    def close(self) -> None:
        self.connection.close()

    def execute(self, query: str, values: Any = ()) -> sqlite3.Cursor:
        """Run a statement within a transaction."""
        return self.connection.execute(query, values)

    def executemany(self, query: str, values: Any) -> None:
        self.connection.executemany(query, values)

    def rows(self, query: str, values: Any = ()) -> list[sqlite3.Row]:
        with explained(self.path):
            return self.connection.execute(query, values).fetchall()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Apply everything that happens within, or nothing; it is on disk at the end."""
        with explained(self.path):
            self.connection.execute("BEGIN IMMEDIATE")
            try:
                yield
            except BaseException:
                # A full disk has rolled back by itself.
                if self.connection.in_transaction:
                    self.connection.execute("ROLLBACK")
                raise
            self.connection.execute("COMMIT")


def _write_ahead(database: sqlite3.Connection) -> None:
    """Switch to WAL mode.

    SQLite does not wait when another process does the same to a new file, so this function does.
    """
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
def explained(path: Path | None) -> Iterator[None]:
    """Turn SQLite errors into LlmchatErrors whose hints say what to do."""
    try:
        yield
    except sqlite3.OperationalError as error:
        if "full" in str(error):
            raise OutOfResources(
                f"the disk is full; {path} could not be written",
                "what was saved before is safe; free some space, or chat with --no-log",
            ) from error
        if "locked" in str(error):
            raise LlmchatError(
                f"another program has locked {path}", "close it, or chat with --no-log"
            ) from error
        if "readonly" in str(error):
            raise LlmchatError(
                f"{path} is read-only", "change its permissions; --no-log chats without a history"
            ) from error
        raise LlmchatError(f"{path}: {error}") from error
    except sqlite3.DatabaseError as error:
        # The low byte of an extended code is its class; errors of Python's own layer have none.
        if getattr(error, "sqlite_errorcode", 0) & 0xFF in (
            sqlite3.SQLITE_NOTADB,
            sqlite3.SQLITE_CORRUPT,
        ):
            raise IntegrityError(
                f"{path} is not a readable history: {error}",
                "move the file away to start a new one; --no-log chats without a history",
            ) from error
        # The file is intact; the value to be written is not.
        raise LlmchatError(
            f"the history refused a value: {error}", "nothing was changed; this is a bug in llmchat"
        ) from error


def make_private(path: Path) -> None:
    """Create the file, readable by its owner alone."""
    try:
        private_file(path)
    except OSError as error:
        raise LlmchatError(
            f"{path} cannot be opened: {error.strerror}", "--no-log chats without a history"
        ) from error
