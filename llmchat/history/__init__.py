"""Every chat, kept in one SQLite file: parent-linked messages, and sessions that point at their last one.

Messages are never changed and never removed by a chat: undo moves the session's tip back, a new answer becomes a sibling of the old one.
What a method has written is on disk when it returns.
"""

import os
import secrets
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

import msgspec
from msgspec import Struct

from llmchat.conversation import Conversation, Message
from llmchat.engines import Finish
from llmchat.errors import IntegrityError, LlmchatError, OutOfResources, UsageError
from llmchat.history.migrations import migrate

_TITLE_LENGTH = 60
_BUSY_SECONDS = 10.0
# Letters that cannot be taken for one another when an id is read aloud or typed.
_ID_LETTERS = "0123456789abcdefghjkmnpqrstvwxyz"

_PATH = """
WITH RECURSIVE path(id, depth) AS (
    SELECT tip, 0 FROM sessions WHERE id = ? AND tip IS NOT NULL
    UNION ALL
    SELECT messages.parent, depth + 1 FROM messages JOIN path ON messages.id = path.id WHERE messages.parent IS NOT NULL
)
SELECT messages.* FROM path JOIN messages ON messages.id = path.id ORDER BY depth DESC
"""


class Session(Struct, frozen=True):
    """A chat as lists show it. turns: questions on its present branch; created, updated: seconds since 1970."""

    id: str
    title: str
    model: str
    turns: int
    created: float
    updated: float


class Record(Struct, frozen=True):
    """A stored message. details: the Finish of an answer as plain values."""

    id: int
    parent: int | None
    role: str
    text: str
    input: str
    state: Literal["complete", "cancelled"]
    created: float
    details: dict[str, Any]


class Hit(Struct, frozen=True):
    """A message that was found; `snippet` has the match between [ and ]."""

    session: str
    message: int
    snippet: str


class History:
    """The history at `path`; None keeps it in memory and leaves no trace."""

    def __init__(self, path: Path | None):
        self.path = path
        if path:
            _make_private(path)
        try:
            self._database = sqlite3.connect(path or ":memory:", timeout=_BUSY_SECONDS, isolation_level=None)
            self._database.row_factory = sqlite3.Row
            with _explained(path):
                # In WAL mode NORMAL survives the death of the process at any moment; only a power cut may lose the last commits.
                self._database.execute("PRAGMA journal_mode = WAL")
                self._database.execute("PRAGMA synchronous = NORMAL")
                self._database.execute("PRAGMA foreign_keys = ON")
                migrate(self._database)
        except LlmchatError:
            self._database.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        self._database.close()

    def begin(self, model: str) -> str:
        """A new, empty session; returns its id."""
        now = time.time()
        session = "".join(secrets.choice(_ID_LETTERS) for _ in range(8))
        with self._transaction():
            self._database.execute("INSERT INTO sessions(id, model, created, updated) VALUES (?, ?, ?, ?)", (session, model, now, now))
        return session

    def append(self, session: str, message: Message, finish: Finish | None = None) -> int:
        """Store a message behind the session's tip and move the tip there; returns the message's id."""
        now = time.time()
        state = "cancelled" if finish and finish.reason == "cancelled" else "complete"
        details = msgspec.json.encode(finish).decode() if finish else "{}"
        with self._transaction():
            row = self._database.execute("SELECT tip, title FROM sessions WHERE id = ?", (session,)).fetchone()
            cursor = self._database.execute(
                "INSERT INTO messages(parent, role, text, input, state, created, details) VALUES (?, ?, ?, ?, ?, ?, ?)",
                (row["tip"], message.role, message.text, message.input, state, now, details),
            )
            title = row["title"] or (_title(message) if message.role == "user" else "")
            self._database.execute(
                "UPDATE sessions SET tip = ?, title = ?, updated = ? WHERE id = ?", (cursor.lastrowid, title, now, session)
            )
        assert cursor.lastrowid is not None
        return cursor.lastrowid

    def rewind(self, session: str, depth: int) -> None:
        """Move the tip back to where the session has `depth` messages. The messages behind it stay as a branch."""
        with self._transaction():
            path = self._path(session)
            tip = path[depth - 1]["id"] if depth else None
            self._database.execute("UPDATE sessions SET tip = ?, updated = ? WHERE id = ?", (tip, time.time(), session))

    def conversation(self, session: str) -> Conversation:
        """The messages of the session's present branch, first to last."""
        return Conversation(tuple(Message(row["role"], row["text"], row["input"]) for row in self._path(session)))

    def messages(self, session: str) -> list[Record]:
        """The present branch with all that is known of each message."""
        return [_record(row) for row in self._path(session)]

    def sessions(self, limit: int | None = None) -> list[Session]:
        """The sessions that have a message, the latest used first."""
        rows = self._rows(
            "SELECT * FROM sessions WHERE tip IS NOT NULL ORDER BY updated DESC, rowid DESC LIMIT ?", (-1 if limit is None else limit,)
        )
        return [self._session(row) for row in rows]

    def latest(self) -> Session | None:
        return next(iter(self.sessions(1)), None)

    def find(self, prefix: str) -> Session:
        """The session whose id begins with `prefix`, or whose title it is; UsageError when there is none or more than one."""
        rows = (
            self._rows("SELECT * FROM sessions WHERE substr(id, 1, length(?1)) = lower(?1) OR title = ?1 ORDER BY updated DESC", (prefix,))
            if prefix
            else []
        )
        if len(rows) == 1:
            return self._session(rows[0])
        if rows:
            raise UsageError(f"{len(rows)} sessions begin with `{prefix}`", f"one of {', '.join(row['id'] for row in rows[:5])}")
        raise UsageError(f"no session begins with `{prefix}`", "`llmchat sessions list` shows them")

    def search(self, text: str, limit: int = 20) -> list[Hit]:
        """Messages that contain `text`, whatever its case, the newest first. Three characters at least, for the index is of trigrams."""
        query = '"' + text.replace('"', '""') + '"'
        rows = self._rows(
            "SELECT rowid AS message, snippet(search, -1, '[', ']', '…', 40) AS snippet FROM search WHERE search MATCH ? ORDER BY rowid DESC LIMIT ?",
            (query, limit),
        )
        return [Hit(self._session_of(row["message"]), row["message"], row["snippet"]) for row in rows]

    def _session_of(self, message: int) -> str:
        """A session whose branch, present or left, holds a message: the latest one that points into its tree."""
        row = self._rows(
            """WITH RECURSIVE tree(id) AS (SELECT ? UNION ALL SELECT messages.id FROM messages JOIN tree ON messages.parent = tree.id)
            SELECT sessions.id FROM sessions JOIN tree ON sessions.tip = tree.id ORDER BY updated DESC LIMIT 1""",
            (message,),
        )
        if row:
            return str(row[0]["id"])
        parent = self._rows("SELECT parent FROM messages WHERE id = ?", (message,))[0]["parent"]
        return self._session_of(parent) if parent else ""

    def _session(self, row: sqlite3.Row) -> Session:
        turns = sum(message["role"] == "user" for message in self._path(row["id"]))
        return Session(row["id"], row["title"], row["model"], turns, row["created"], row["updated"])

    def _path(self, session: str) -> list[sqlite3.Row]:
        return self._rows(_PATH, (session,))

    def _rows(self, query: str, values: tuple[Any, ...]) -> list[sqlite3.Row]:
        with _explained(self.path):
            return self._database.execute(query, values).fetchall()

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        with _explained(self.path):
            self._database.execute("BEGIN IMMEDIATE")
            try:
                yield
            except BaseException:
                # A full disk has rolled back by itself.
                if self._database.in_transaction:
                    self._database.execute("ROLLBACK")
                raise
            self._database.execute("COMMIT")


@contextmanager
def _explained(path: Path | None) -> Iterator[None]:
    """Turn SQLite's errors into lines that say what to do."""
    try:
        yield
    except sqlite3.OperationalError as error:
        if "full" in str(error):
            raise OutOfResources(
                f"the disk is full; {path} could not be written", "what was saved before is safe; free some space, or chat with --no-log"
            ) from error
        if "locked" in str(error):
            raise LlmchatError(f"another program holds {path}", "close it, or chat with --no-log") from error
        if "readonly" in str(error):
            raise LlmchatError(f"{path} may not be written", "its permissions say so; --no-log chats without it") from error
        raise LlmchatError(f"{path}: {error}") from error
    except sqlite3.DatabaseError as error:
        raise IntegrityError(
            f"{path} is not a readable history: {error}", "move it away to start a new one; --no-log chats without it"
        ) from error


def _make_private(path: Path) -> None:
    """Chats are nobody else's business."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
    except OSError as error:
        raise LlmchatError(f"{path} cannot be opened: {error.strerror}", "--no-log chats without a history") from error


def _title(message: Message) -> str:
    """The first words of a question, cut between words."""
    words = " ".join((message.text or message.input).split())
    if len(words) <= _TITLE_LENGTH:
        return words
    cut = words[:_TITLE_LENGTH].rpartition(" ")[0] or words[:_TITLE_LENGTH]
    return f"{cut}…"


def _record(row: sqlite3.Row) -> Record:
    return Record(
        row["id"], row["parent"], row["role"], row["text"], row["input"], row["state"], row["created"], msgspec.json.decode(row["details"])
    )
