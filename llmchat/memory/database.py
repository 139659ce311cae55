"""The SQLite file of an index: its tables and its version."""

from pathlib import Path

from llmchat.errors import UsageError
from llmchat.sqlite_file import Advice, SqliteFile, explained, make_private

ADVICE = Advice(
    holds="index",
    full="what was added before is safe; free some space and run the command again",
    locked="wait for it to end, and try again",
    readonly="change its permissions",
    damaged="delete it with `llmchat index rm`, and add its documents again",
)
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


class Database(SqliteFile):
    """The database at `path`; a new file gets the tables if `create` is set. any_thread: see
    SqliteFile."""

    path: Path

    def __init__(self, path: Path, create: bool, *, any_thread: bool = False):
        if create:
            make_private(path, ADVICE)
        elif not path.is_file():
            raise UsageError(f"there is no index {path}")
        super().__init__(path, ADVICE, _BUSY_SECONDS, any_thread=any_thread)
        try:
            with explained(path, ADVICE):
                self._prepare()
        except BaseException:
            self.close()
            raise

    def _prepare(self) -> None:
        self.write_ahead()
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
