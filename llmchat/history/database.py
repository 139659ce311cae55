"""The SQLite file of the history, migrated to the current schema."""

import sqlite3
from pathlib import Path
from typing import Any

from llmchat.errors import LlmchatError
from llmchat.history.migrations import migrate
from llmchat.sqlite_file import Advice, SqliteFile, explained, make_private

ADVICE = Advice(
    holds="history",
    full="what was saved before is safe; free some space, or chat with --no-log",
    locked="close it, or chat with --no-log",
    readonly="change its permissions; --no-log chats without a history",
    damaged="move the file away to start a new one; --no-log chats without a history",
    unopened="--no-log chats without a history",
)
_BUSY_SECONDS = 10.0


class Database(SqliteFile):
    """The database at `path`, migrated to the current schema; None keeps it in memory."""

    def __init__(self, path: Path | None, *, any_thread: bool = False):
        if path:
            make_private(path, ADVICE)
        super().__init__(path, ADVICE, _BUSY_SECONDS, any_thread=any_thread)
        self.connection.row_factory = sqlite3.Row
        try:
            with explained(path, ADVICE):
                self.write_ahead()
                self.connection.execute("PRAGMA foreign_keys = ON")
                migrate(self.connection)
        except LlmchatError:
            self.close()
            raise

    def executemany(self, query: str, values: Any) -> None:
        self.connection.executemany(query, values)
