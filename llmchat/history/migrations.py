"""The schema of the history, as numbered steps.

A released step never changes; a new column is a new step.
"""

import sqlite3
from collections.abc import Callable

from llmchat.errors import LlmchatError
from llmchat.history.repair import untangle

_FIRST = """
CREATE TABLE messages (
    id      INTEGER PRIMARY KEY,
    parent  INTEGER REFERENCES messages(id),
    role    TEXT NOT NULL,
    text    TEXT NOT NULL,
    input   TEXT NOT NULL DEFAULT '',
    state   TEXT NOT NULL DEFAULT 'complete',
    created REAL NOT NULL,
    details TEXT NOT NULL DEFAULT '{}',
    mark    TEXT NOT NULL DEFAULT '',
    covers  INTEGER NOT NULL DEFAULT 0,
    -- The session that wrote it; forks share messages.
    session TEXT NOT NULL
);
CREATE INDEX messages_parent ON messages(parent);
CREATE INDEX messages_session ON messages(session);

CREATE TABLE sessions (
    id      TEXT PRIMARY KEY,
    title   TEXT NOT NULL DEFAULT '',
    model   TEXT NOT NULL,
    tip     INTEGER REFERENCES messages(id),
    created REAL NOT NULL,
    updated REAL NOT NULL,
    tags    TEXT NOT NULL DEFAULT '[]',
    -- Of the present branch, so that a list need not walk it.
    turns   INTEGER NOT NULL DEFAULT 0,
    tokens  INTEGER NOT NULL DEFAULT 0,
    -- What it was imported from: the same import twice makes one session.
    source  TEXT UNIQUE
);
CREATE INDEX sessions_updated ON sessions(updated);
CREATE INDEX sessions_tip ON sessions(tip);

-- Trigrams find parts of words and need no spaces, so Chinese and Japanese are found as well.
CREATE VIRTUAL TABLE search USING fts5(
    text, input, content='messages', content_rowid='id', tokenize='trigram'
);
CREATE TRIGGER messages_added AFTER INSERT ON messages BEGIN
    INSERT INTO search(rowid, text, input) VALUES (new.id, new.text, new.input);
END;
CREATE TRIGGER messages_removed AFTER DELETE ON messages BEGIN
    INSERT INTO search(search, rowid, text, input) VALUES ('delete', old.id, old.text, old.input);
END;
CREATE TRIGGER messages_changed AFTER UPDATE OF text, input ON messages BEGIN
    INSERT INTO search(search, rowid, text, input) VALUES ('delete', old.id, old.text, old.input);
    INSERT INTO search(rowid, text, input) VALUES (new.id, new.text, new.input);
END;
"""

# The options that open the session's model again, and the settings made in it: JSON objects.
_OPENS_AND_SETTINGS = """
ALTER TABLE sessions ADD COLUMN opens TEXT NOT NULL DEFAULT '{}';
ALTER TABLE sessions ADD COLUMN settings TEXT NOT NULL DEFAULT '{}';
"""

# An import looks for the session that a chat was exported from by the moment at which it began.
_BY_BEGINNING = """
CREATE INDEX IF NOT EXISTS sessions_created ON sessions(created);
"""

# A script, or a function that gets the database within the step's transaction.
STEPS: tuple[str | Callable[[sqlite3.Connection], None], ...] = (
    _FIRST,
    _OPENS_AND_SETTINGS,
    untangle,
    _BY_BEGINNING,
)


def migrate(database: sqlite3.Connection) -> None:
    """Migrate a database to the current schema, each step in one transaction.

    Raises LlmchatError for a database of a newer program, which stays as it is.
    """
    version = _version(database)
    if version > len(STEPS):
        raise LlmchatError(
            f"the history was written by a newer llmchat (schema {version}; this program supports"
            f" up to {len(STEPS)})",
            "update llmchat; nothing was changed",
        )
    while version < len(STEPS):
        # IMMEDIATE, and the version read again inside: a second process may be doing the same.
        database.execute("BEGIN IMMEDIATE")
        try:
            version = _version(database)
            if version < len(STEPS):
                _apply(STEPS[version], database)
                version += 1
                database.execute(f"PRAGMA user_version = {version}")
            database.execute("COMMIT")
        except BaseException:
            database.execute("ROLLBACK")
            raise


def _apply(step: str | Callable[[sqlite3.Connection], None], database: sqlite3.Connection) -> None:
    if callable(step):
        step(database)
        return
    for statement in _statements(step):
        database.execute(statement)


def _version(database: sqlite3.Connection) -> int:
    return int(database.execute("PRAGMA user_version").fetchone()[0])


def _statements(script: str) -> list[str]:
    """The statements of a script one by one: executescript would end the transaction."""
    statements, current = [], ""
    for line in script.splitlines(keepends=True):
        current += line
        if sqlite3.complete_statement(current):
            statements.append(current)
            current = ""
    return statements
