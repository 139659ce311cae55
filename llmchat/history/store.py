"""Every chat, kept in one SQLite file: parent-linked messages, and sessions that point at their last one.

A chat never changes a text and never removes a message: undo moves the session's tip back, a new answer becomes a sibling of the old one, a
fork is a second pointer. What a method has written is on disk when it returns.
"""

import secrets
import sqlite3
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import msgspec

from llmchat.conversation import Conversation, Mark, Message
from llmchat.engines import Finish
from llmchat.errors import IntegrityError, LlmchatError, OutOfResources, UsageError
from llmchat.history.imports import Imported
from llmchat.history.migrations import migrate
from llmchat.history.types import Hit, Record, Session
from llmchat.settings import private_file

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
# Every message that shares the session's first message: its branches, and those of its forks.
_TREE = """
WITH RECURSIVE tree(id) AS (
    SELECT ?
    UNION ALL
    SELECT messages.id FROM messages JOIN tree ON messages.parent = tree.id
)
SELECT messages.* FROM tree JOIN messages ON messages.id = tree.id ORDER BY messages.id
"""
# Messages whose session is gone, but for the ancestors of what living sessions hold.
_UNNEEDED = """
WITH RECURSIVE needed(id) AS (
    SELECT tip FROM sessions WHERE tip IS NOT NULL
    UNION
    SELECT parent FROM messages WHERE parent IS NOT NULL AND session IN (SELECT id FROM sessions)
    UNION
    SELECT messages.parent FROM messages JOIN needed ON messages.id = needed.id WHERE messages.parent IS NOT NULL
)
DELETE FROM messages WHERE session NOT IN (SELECT id FROM sessions) AND id NOT IN needed
"""
# A living session that stands on a message, or on one of its children.
_HEIR = """
SELECT id FROM sessions WHERE tip = :message
UNION ALL SELECT session FROM messages WHERE parent = :message AND session IN (SELECT id FROM sessions) LIMIT 1
"""


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
                _write_ahead(self._database)
                # In WAL mode NORMAL survives the death of the process at any moment; only a power cut may lose the last commits.
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

    def begin(self, model: str, opens: Mapping[str, Any] | None = None, settings: Mapping[str, Any] | None = None) -> str:
        """A new, empty session; returns its id. opens, settings: see Session."""
        now, session = time.time(), self._new_id()
        with self._transaction():
            self._database.execute("INSERT INTO sessions(id, model, created, updated) VALUES (?, ?, ?, ?)", (session, model, now, now))
        self.remember(session, model, opens or {}, settings or {})
        return session

    def remember(self, session: str, model: str, opens: Mapping[str, Any], settings: Mapping[str, Any]) -> None:
        """Keep another model, and other settings, with a session."""
        known = (msgspec.json.encode(values).decode() for values in (opens, settings))
        with self._transaction():
            self._database.execute("UPDATE sessions SET model = ?, opens = ?, settings = ? WHERE id = ?", (model, *known, session))

    def append(
        self,
        session: str,
        message: Message,
        finish: Finish | None = None,
        details: Mapping[str, Any] | None = None,
    ) -> int:
        """Store a message behind the session's tip and move the tip there; returns the message's id."""
        now = time.time()
        state = "cancelled" if finish and finish.reason == "cancelled" else "complete"
        known = (msgspec.to_builtins(finish) if finish else {}) | dict(details or {})
        tokens = finish.prompt_tokens + finish.reply_tokens if finish else 0
        with self._transaction():
            return self._insert(session, message, state, now, known, tokens)

    def take(self, chat: Imported) -> str | None:
        """Store a chat from elsewhere as a session; returns its id, or None where the same chat was taken before."""
        started = chat.created or next((said.created for said in chat.messages if said.created), 0.0) or time.time()
        session = self._new_id()
        with self._transaction():
            if self._rows("SELECT 1 FROM sessions WHERE source = ?", (chat.source,)):
                return None
            self._database.execute(
                "INSERT INTO sessions(id, model, title, created, updated, source, tags) VALUES (?, ?, ?, ?, ?, ?, ?)",
                (session, chat.model, chat.title, started, started, chat.source, msgspec.json.encode(chat.tags).decode()),
            )
            for said in chat.messages:
                self._insert(session, said.message, said.state, said.created or started, {}, 0)
        return session

    def _insert(self, session: str, message: Message, state: str, created: float, details: Mapping[str, Any], tokens: int) -> int:
        row = self._database.execute("SELECT tip, title FROM sessions WHERE id = ?", (session,)).fetchone()
        if row is None:
            raise UsageError(f"the session {session} is gone", "another llmchat deleted it; `/new` begins another")
        known = msgspec.json.encode(details).decode()
        values = (row["tip"], message.role, message.text, message.input, state, created, known, message.mark, message.covers, session)
        cursor = self._database.execute(
            """INSERT INTO messages(parent, role, text, input, state, created, details, mark, covers, session)
            VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)""",
            values,
        )
        title = row["title"] or (_title(message) if message.role == "user" else "")
        self._database.execute(
            "UPDATE sessions SET tip = ?, title = ?, updated = ?, turns = turns + ?, tokens = coalesce(nullif(?, 0), tokens) WHERE id = ?",
            (cursor.lastrowid, title, created, message.role == "user", tokens, session),
        )
        return int(cursor.lastrowid or 0)

    def rewind(self, session: str, depth: int) -> None:
        """Move the tip back to where the session has `depth` messages. The messages behind it stay as a branch."""
        with self._transaction():
            path = self._path(session)[:depth]
            self._point(session, path)

    def fork(self, session: str) -> str:
        """A new session that stands where this one stands; returns its id."""
        now, new = time.time(), self._new_id()
        with self._transaction():
            self._database.execute(
                """INSERT INTO sessions(id, model, title, tip, created, updated, tags, turns, tokens, opens, settings)
                SELECT ?, model, title, tip, ?, ?, tags, turns, tokens, opens, settings FROM sessions WHERE id = ?""",
                (new, now, now, session),
            )
        return new

    def alternative(self, session: str, step: int) -> tuple[int, int]:
        """Move the tip from the last answer to the next (1) or the earlier (-1) one to the same question; returns its number and how many
        there are."""
        with self._transaction():
            path = self._path(session)
            answers = [index for index, row in enumerate(path) if row["role"] == "assistant"]
            if not answers:
                raise UsageError("there is no answer yet")
            last = path[answers[-1]]
            siblings = self._rows("SELECT * FROM messages WHERE parent IS ? AND role = 'assistant' ORDER BY id", (last["parent"],))
            number = [row["id"] for row in siblings].index(last["id"]) + step
            if not 0 <= number < len(siblings):
                raise UsageError(
                    f"this is the {'last' if step > 0 else 'first'} of {len(siblings)} answers"
                    if len(siblings) > 1
                    else "there is one answer only",
                    "/regen makes another" if step > 0 else "",
                )
            self._point(session, [*path[: answers[-1]], siblings[number]])
        return number + 1, len(siblings)

    def mark(self, session: str, index: int, mark: Mark) -> None:
        """Mark the message at `index` of the present branch."""
        with self._transaction():
            self._database.execute("UPDATE messages SET mark = ? WHERE id = ?", (mark, self._path(session)[index]["id"]))

    def rename(self, session: str, title: str) -> None:
        with self._transaction():
            self._database.execute("UPDATE sessions SET title = ? WHERE id = ?", (title.strip(), session))

    def tag(self, session: str, tags: Sequence[str]) -> None:
        with self._transaction():
            names = msgspec.json.encode(sorted(set(tags))).decode()
            self._database.execute("UPDATE sessions SET tags = ? WHERE id = ?", (names, session))

    def delete(self, *sessions: str) -> int:
        """Remove sessions and the messages that no other one shares; returns how many those were. Shared ones pass to who shares them."""
        with self._transaction():
            # Children point at parents; they are checked when the transaction ends.
            self._database.execute("PRAGMA defer_foreign_keys = ON")
            self._database.executemany("DELETE FROM sessions WHERE id = ?", [(session,) for session in sessions])
            self._database.execute(_UNNEEDED)
            removed = int(self._database.execute("SELECT changes()").fetchone()[0])
            # Children come before parents, so that each finds an heir below it.
            for row in self._rows("SELECT id FROM messages WHERE session NOT IN (SELECT id FROM sessions) ORDER BY id DESC"):
                (heir,) = self._database.execute(_HEIR, {"message": row["id"]}).fetchone()
                self._database.execute("UPDATE messages SET session = ? WHERE id = ?", (heir, row["id"]))
        return removed

    def unused_since(self, moment: float) -> list[Session]:
        """Sessions last used before a moment, the empty ones among them."""
        return [_session(row) for row in self._rows("SELECT * FROM sessions WHERE updated < ? ORDER BY updated", (moment,))]

    def shrink(self) -> None:
        """Give the space of removed messages back to the disk, and what they said with it."""
        with _explained(self.path):
            self._database.execute("INSERT INTO search(search) VALUES ('optimize')")
            self._database.execute("VACUUM")
            self._database.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def backup(self, path: Path) -> None:
        """A copy of the whole history, whole even while others write."""
        _make_private(path)
        with _explained(path):
            target = sqlite3.connect(path)
            try:
                self._database.backup(target)
            finally:
                target.close()

    def conversation(self, session: str) -> Conversation:
        """The messages of the session's present branch, first to last."""
        return Conversation(tuple(_message(row) for row in self._path(session)))

    def messages(self, session: str) -> list[Record]:
        """The present branch with all that is known of each message."""
        return [_record(row) for row in self._path(session)]

    def tree(self, session: str) -> list[Record]:
        """Every message of the session's tree, those of left branches and of forks too, in the order in which they were written."""
        path = self._path(session)
        return [_record(row) for row in self._rows(_TREE, (path[0]["id"],))] if path else []

    def sessions(self, limit: int | None = None, tag: str = "") -> list[Session]:
        """The sessions that have a message, the latest used first."""
        rows = self._rows(
            """SELECT * FROM sessions WHERE tip IS NOT NULL AND (?1 = '' OR EXISTS (SELECT 1 FROM json_each(tags) WHERE value = ?1))
            ORDER BY updated DESC, rowid DESC LIMIT ?2""",
            (tag, -1 if limit is None else limit),
        )
        return [_session(row) for row in rows]

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
            return _session(rows[0])
        if rows:
            raise UsageError(f"{len(rows)} sessions begin with `{prefix}`", f"one of {', '.join(row['id'] for row in rows[:5])}")
        raise UsageError(f"no session begins with `{prefix}`", "`llmchat sessions list` shows them")

    def search(self, text: str, limit: int = 20) -> list[Hit]:
        """Messages that contain `text`, whatever its case, the newest first. The index is of trigrams; shorter texts are looked for one by one."""
        if len(text) < 3:
            rows = self._rows(
                """SELECT messages.*, title, replace(substr(text, max(1, instr(lower(text), lower(?1)) - 30), 80), char(10), ' ') AS snippet
                FROM messages JOIN sessions ON sessions.id = session WHERE instr(lower(text), lower(?1)) > 0 ORDER BY messages.id DESC LIMIT ?2""",
                (text, limit),
            )
        else:
            rows = self._rows(
                """SELECT messages.*, title, snippet(search, -1, '[', ']', '…', 40) AS snippet
                FROM search JOIN messages ON messages.id = search.rowid JOIN sessions ON sessions.id = messages.session
                WHERE search MATCH ? ORDER BY search.rowid DESC LIMIT ?""",
                ('"' + text.replace('"', '""') + '"', limit),
            )
        return [Hit(row["session"], row["title"], row["id"], row["role"], row["created"], row["snippet"]) for row in rows]

    def _new_id(self) -> str:
        return "".join(secrets.choice(_ID_LETTERS) for _ in range(8))

    def _point(self, session: str, path: Sequence[sqlite3.Row]) -> None:
        """Let the session end where `path` ends."""
        tip = path[-1]["id"] if path else None
        turns = sum(row["role"] == "user" for row in path)
        self._database.execute("UPDATE sessions SET tip = ?, turns = ?, updated = ? WHERE id = ?", (tip, turns, time.time(), session))

    def _path(self, session: str) -> list[sqlite3.Row]:
        return self._rows(_PATH, (session,))

    def _rows(self, query: str, values: tuple[Any, ...] = ()) -> list[sqlite3.Row]:
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


def _write_ahead(database: sqlite3.Connection) -> None:
    """Switch to WAL mode. SQLite does not wait when another process does the same to a new file, so this does."""
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
        private_file(path)
    except OSError as error:
        raise LlmchatError(f"{path} cannot be opened: {error.strerror}", "--no-log chats without a history") from error


def _title(message: Message) -> str:
    """The first words of a question, cut between words."""
    words = " ".join((message.text or message.input).split())
    if len(words) <= _TITLE_LENGTH:
        return words
    cut = words[:_TITLE_LENGTH].rpartition(" ")[0] or words[:_TITLE_LENGTH]
    return f"{cut}…"


def _message(row: sqlite3.Row) -> Message:
    return Message(row["role"], row["text"], row["input"], row["mark"], row["covers"])


def _record(row: sqlite3.Row) -> Record:
    return Record(row["id"], row["parent"], _message(row), row["state"], row["created"], msgspec.json.decode(row["details"]))


def _session(row: sqlite3.Row) -> Session:
    tags, opens, settings = (msgspec.json.decode(row[name]) for name in ("tags", "opens", "settings"))
    times = row["created"], row["updated"]
    return Session(row["id"], row["title"], row["model"], row["turns"], row["tokens"], tuple(tags), *times, opens, settings)
