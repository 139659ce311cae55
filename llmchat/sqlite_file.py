"""SQLite files: transactions, write-ahead logging, and errors in one line with a way out."""

import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from msgspec import Struct

from llmchat.errors import IntegrityError, LlmchatError, OutOfResources
from llmchat.settings import private_file


class Advice(Struct, frozen=True):
    """What a file holds, such as `history`, and the hint of each error."""

    holds: str
    full: str
    locked: str
    readonly: str
    damaged: str
    unopened: str = ""


class SqliteFile:
    """A connection in autocommit mode that waits for other programs. `path` None is in memory."""

    def __init__(self, path: Path | None, advice: Advice, wait: float, *, any_thread: bool = False):
        """wait: seconds until a locked file is an error. any_thread: the caller sees to it that one
        thread at a time uses the connection."""
        self.path, self.advice, self._wait = path, advice, wait
        with explained(path, advice):
            self.connection = sqlite3.connect(
                path or ":memory:",
                timeout=wait,
                isolation_level=None,
                check_same_thread=not any_thread,
            )

    def write_ahead(self) -> None:
        """Switch to WAL mode, where the death of the process at any moment loses nothing.

        Only a power failure may lose the last commits. SQLite does not wait when another process
        does the same to a new file, so this method does.
        """
        until = time.monotonic() + self._wait
        while True:
            try:
                self.connection.execute("PRAGMA journal_mode = WAL")
                break
            except sqlite3.OperationalError as error:
                if "locked" not in str(error) or time.monotonic() > until:
                    raise
                time.sleep(0.01)
        self.connection.execute("PRAGMA synchronous = NORMAL")

    def close(self) -> None:
        self.connection.close()

    def execute(self, query: str, values: Any = ()) -> sqlite3.Cursor:
        """Run a statement within a transaction."""
        return self.connection.execute(query, values)

    def rows(self, query: str, values: Any = ()) -> list[Any]:
        with explained(self.path, self.advice):
            return self.connection.execute(query, values).fetchall()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Apply everything that happens within, or nothing; it is on disk at the end."""
        with explained(self.path, self.advice):
            self.connection.execute("BEGIN IMMEDIATE")
            try:
                yield
                self.connection.execute("COMMIT")
            except BaseException:
                # A full disk has rolled back by itself.
                if self.connection.in_transaction:
                    self.connection.execute("ROLLBACK")
                raise


@contextmanager
def explained(path: Path | None, advice: Advice) -> Iterator[None]:
    """Turn SQLite errors into LlmchatErrors whose hints say what to do."""
    try:
        yield
    except sqlite3.OperationalError as error:
        raise _operational(path, str(error), advice) from error
    except sqlite3.DatabaseError as error:
        # The low byte of an extended code is its class; errors of Python's own layer have none.
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        if code in (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT):
            raise IntegrityError(
                f"{path} is not a readable {advice.holds}: {error}", advice.damaged
            ) from error
        # The file is intact; the value to be written is not.
        raise LlmchatError(
            f"the {advice.holds} refused a value: {error}",
            "nothing was changed; this is a bug in llmchat",
        ) from error


def make_private(path: Path, advice: Advice) -> None:
    """Create the file, readable by its owner alone."""
    try:
        private_file(path)
    except OSError as error:
        raise LlmchatError(f"{path} cannot be opened: {error.strerror}", advice.unopened) from error


def _operational(path: Path | None, reason: str, advice: Advice) -> LlmchatError:
    if "full" in reason:
        return OutOfResources(f"the disk is full; {path} could not be written", advice.full)
    if "locked" in reason:
        return LlmchatError(f"another program has locked {path}", advice.locked)
    if "readonly" in reason:
        return LlmchatError(f"{path} is read-only", advice.readonly)
    return LlmchatError(f"{path}: {reason}")
