"""Every chat, kept in one SQLite file: messages linked to their parents, and sessions that point
at their last message.

A chat never changes a text and never removes a message: undo moves the session's tip back, a new
answer becomes a sibling of the old one, a fork is a second pointer. What a method has written is
on disk when it returns. Chats write through a BranchWriter, because several processes may have
one session open.
"""

import secrets
import sqlite3
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import msgspec

from llmchat.conversation import Conversation, FoundPassage, Mark, Message
from llmchat.errors import UsageError
from llmchat.history import rows
from llmchat.history.database import ADVICE, Database
from llmchat.history.deletion import delete_sessions
from llmchat.history.imports import ImportedChat
from llmchat.history.overview import Overview, last_answer, overviews
from llmchat.history.search import find_messages
from llmchat.history.turns import turn_ids, turns
from llmchat.history.types import Hit, Record, Session, Turn
from llmchat.sqlite_file import explained, make_private

# No letter can be mistaken for another when an id is read aloud or typed.
_ID_LETTERS, _ID_LENGTH = "0123456789abcdefghjkmnpqrstvwxyz", 8

_INSERT_SESSION = """
INSERT INTO sessions(id, model, title, created, updated, source, tags)
VALUES (?, ?, ?, ?, ?, ?, ?)
"""
_INSERT_FORK = """
INSERT INTO sessions(id, model, title, created, updated, tags, tokens, opens, settings)
SELECT ?, model, title, ?, ?, tags, tokens, opens, settings FROM sessions WHERE id = ?
"""
_INSERT_MESSAGE = """
INSERT INTO messages(parent, role, text, input, state, created, details, mark, covers, session)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
"""
_EXTEND_SESSION = """
UPDATE sessions SET tip = ?, title = coalesce(nullif(title, ''), ?), updated = ?,
    turns = turns + ?, tokens = coalesce(nullif(?, 0), tokens)
WHERE id = ?
"""
_LIST_SESSIONS = """
SELECT * FROM sessions
WHERE tip IS NOT NULL
    AND (?1 = '' OR EXISTS (SELECT 1 FROM json_each(tags) WHERE value = ?1))
ORDER BY updated DESC, rowid DESC LIMIT ?2
"""
_FIND_SESSION = """
SELECT * FROM sessions WHERE substr(id, 1, length(?1)) = lower(?1) OR title = ?1
ORDER BY updated DESC
"""


class History:
    """The history at `path`; None keeps it in memory and leaves no trace."""

    def __init__(
        self,
        path: Path | None,
        now: Callable[[], float] = time.time,
        *,
        any_thread: bool = False,
    ):
        """any_thread: the caller sees to it that one thread at a time uses it."""
        self.path = path
        self._now = now
        self._database = Database(path, any_thread=any_thread)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        self._database.close()

    # Sessions

    def begin(
        self,
        model: str,
        opens: Mapping[str, Any] | None = None,
        settings: Mapping[str, Any] | None = None,
    ) -> str:
        """Create an empty session; returns its id. opens, settings: see Session."""
        now, session = self._now(), self._new_id()
        with self.transaction():
            self._database.execute(_INSERT_SESSION, (session, model, "", now, now, None, "[]"))
        self.remember(session, model, opens or {}, settings or {})
        return session

    def remember(
        self, session: str, model: str, opens: Mapping[str, Any], settings: Mapping[str, Any]
    ) -> None:
        """Replace the model and the settings of a session."""
        encoded = (msgspec.json.encode(values).decode() for values in (opens, settings))
        with self.transaction():
            self._database.execute(
                "UPDATE sessions SET model = ?, opens = ?, settings = ? WHERE id = ?",
                (model, *encoded, session),
            )

    def rename(self, session: str, title: str) -> None:
        with self.transaction():
            self._database.execute(
                "UPDATE sessions SET title = ? WHERE id = ?", (title.strip(), session)
            )

    def tag(self, session: str, tags: Sequence[str]) -> None:
        """Replace the tags of a session."""
        names = msgspec.json.encode(sorted(set(tags))).decode()
        with self.transaction():
            self._database.execute("UPDATE sessions SET tags = ? WHERE id = ?", (names, session))

    def delete(self, *sessions: str) -> int:
        """Remove sessions and the messages that no other session shares; returns their number."""
        with self.transaction():
            return delete_sessions(self._database, sessions)

    def unused_since(self, moment: float) -> list[Session]:
        """Sessions last used before a moment, including empty ones."""
        query = "SELECT * FROM sessions WHERE updated < ? ORDER BY updated"
        return [rows.session(row) for row in self._database.rows(query, (moment,))]

    def sessions(self, limit: int | None = None, tag: str = "") -> list[Session]:
        """The sessions that have a message, most recently used first."""
        found = self._database.rows(_LIST_SESSIONS, (tag, -1 if limit is None else limit))
        return [rows.session(row) for row in found]

    def overviews(self, limit: int | None = None) -> list[Overview]:
        """The same as a list to choose from shows them."""
        return overviews(self._database, limit)

    def last_answer(self, session: str) -> str:
        """The beginning of the session's last answer; empty if it has none."""
        return last_answer(self._database, session)

    def latest(self) -> Session | None:
        """The session used last."""
        return next(iter(self.sessions(1)), None)

    def find(self, prefix: str) -> Session:
        """The session whose id begins with `prefix`, or whose title equals it.

        Raises UsageError when there is none or more than one.
        """
        found = self._database.rows(_FIND_SESSION, (prefix,)) if prefix else []
        if not found:
            raise UsageError(
                f"no session begins with `{prefix}`", "`llmchat sessions list` shows them"
            )
        if len(found) > 1:
            raise UsageError(
                f"{len(found)} sessions begin with `{prefix}`",
                f"one of {', '.join(row['id'] for row in found[:5])}",
            )
        return rows.session(found[0])

    # Messages

    def conversation(self, session: str) -> Conversation:
        """The messages of the session's current branch, first to last."""
        return Conversation(tuple(rows.message(row) for row in self.path_of(session)))

    def messages(self, session: str) -> list[Record]:
        """The current branch, with everything known about each message."""
        return [rows.record(row) for row in self.path_of(session)]

    def tree(self, session: str) -> list[Record]:
        """Every message of the session's tree, oldest first, including those of other branches
        and of forks."""
        path = self.path_of(session)
        if not path:
            return []
        first = path[0]["id"]
        records = [rows.record(row) for row in rows.tree(self._database, first)]
        # In a damaged file the first message may have a parent: a missing one, or a later one.
        return [
            msgspec.structs.replace(one, parent=None) if one.id == first else one for one in records
        ]

    def search(self, text: str, limit: int = 20) -> list[Hit]:
        """Messages that contain `text` in any case, newest first."""
        return find_messages(self._database, text, limit)

    def turn_ids(self) -> set[tuple[str, int]]:
        """The session and the last message of each turn, on every branch."""
        return turn_ids(self._database)

    def turns(self, ids: Iterable[int]) -> list[Turn]:
        """The turns that end with these messages; one that is gone is left out."""
        return turns(self._database, ids)

    def path_of(self, session: str) -> list[sqlite3.Row]:
        """The rows of the session's current branch, first to last."""
        found = self._database.rows("SELECT tip FROM sessions WHERE id = ?", (session,))
        return rows.path_to(self._database, found[0]["tip"]) if found else []

    def path_to(self, tip: int | None) -> list[sqlite3.Row]:
        """The rows from the first message to `tip`."""
        return rows.path_to(self._database, tip)

    # What a BranchWriter does within its transactions

    def transaction(self) -> AbstractContextManager[None]:
        """Apply every call made within it, or none."""
        return self._database.transaction()

    def insert(
        self,
        session: str,
        parent: int | None,
        message: Message,
        *,
        state: str = "complete",
        details: Mapping[str, Any] | None = None,
        tokens: int = 0,
        created: float | None = None,
    ) -> int:
        """Within a transaction: store a message after `parent`, as the end of the session.

        Returns the id of the message.
        """
        created = self._now() if created is None else created
        names = ("files", "calls", "call_id", "passages")
        parts = {name: getattr(message, name) for name in names}
        known = {**(details or {}), **{name: value for name, value in parts.items() if value}}
        encoded = msgspec.json.encode(known).decode()
        content = (parent, message.role, message.text, message.input, state, created, encoded)
        cursor = self._database.execute(
            _INSERT_MESSAGE, (*content, message.mark, message.covers, session)
        )
        is_question = message.role == "user"
        title = rows.title(message) if is_question else ""
        self._database.execute(
            _EXTEND_SESSION, (cursor.lastrowid, title, created, is_question, tokens, session)
        )
        return int(cursor.lastrowid or 0)

    def tip(self, session: str) -> int | None:
        """The id of the session's last message. Raises UsageError where the session is gone."""
        self._require(session, None)
        (row,) = self._database.rows("SELECT tip FROM sessions WHERE id = ?", (session,))
        return None if row["tip"] is None else int(row["tip"])

    def fork(self, session: str, path: Sequence[int]) -> str:
        """Within a transaction: create a session with the title and tags of another, which ends
        where `path` ends; returns its id."""
        self._require(session, path[-1] if path else None)
        now, new = self._now(), self._new_id()
        self._database.execute(_INSERT_FORK, (new, now, now, session))
        self.move_tip(new, path)
        return new

    def move_tip(self, session: str, path: Sequence[int]) -> None:
        """Within a transaction: make a session end where `path` ends."""
        tip = path[-1] if path else None
        turns = sum(row["role"] == "user" for row in rows.path_to(self._database, tip))
        self._database.execute(
            "UPDATE sessions SET tip = ?, turns = ?, updated = ? WHERE id = ?",
            (tip, turns, self._now(), session),
        )

    def siblings(self, path: Sequence[int]) -> tuple[list[int], list[int], int]:
        """The path before its last answer, every answer to the same question, and the index of
        the answer on the path. Raises UsageError where the path has no answer."""
        kept = set(path)
        stored = rows.path_to(self._database, path[-1] if path else None)
        messages = [row for row in stored if row["id"] in kept]
        answered = [i for i, row in enumerate(messages) if row["role"] == "assistant"]
        if not answered:
            raise UsageError("there is no answer yet")
        last = messages[answered[-1]]
        query = "SELECT id FROM messages WHERE parent IS ? AND role = 'assistant' ORDER BY id"
        answers = [int(row["id"]) for row in self._database.rows(query, (last["parent"],))]
        return list(path[: answered[-1]]), answers, answers.index(last["id"])

    def mark(self, message: int, mark: Mark) -> None:
        """Within a transaction: pin or exclude a message, or remove its mark."""
        self._database.execute("UPDATE messages SET mark = ? WHERE id = ?", (mark, message))

    def mark_passages(self, message: int, passages: tuple[FoundPassage, ...]) -> None:
        """Within a transaction: store the passages of a message with their marks."""
        encoded = msgspec.json.encode(passages).decode()
        self._database.execute(
            "UPDATE messages SET details = json_set(details, '$.passages', json(?)) WHERE id = ?",
            (encoded, message),
        )

    def _require(self, session: str, message: int | None) -> None:
        """Raise UsageError where another process deleted the session or the message."""
        if not self._database.rows("SELECT 1 FROM sessions WHERE id = ?", (session,)):
            raise UsageError(
                f"the session {session} is gone",
                "another llmchat deleted it; `/new` begins another",
            )
        if message is not None and not self._database.rows(
            "SELECT 1 FROM messages WHERE id = ?", (message,)
        ):
            raise UsageError(
                f"the messages of session {session} are gone",
                "another llmchat deleted them; `/new` begins another",
            )

    # Import, backup

    def import_chat(self, chat: ImportedChat) -> str | None:
        """Store a chat from elsewhere as a session; returns its id.

        Returns None where the same chat, or the session it was exported from, is stored already.
        """
        first_known = next((one.created for one in chat.messages if one.created), 0.0)
        started = chat.created or first_known or self._now()
        tags = msgspec.json.encode(chat.tags).decode()
        with self.transaction():
            if self._has_source(chat) or self._has_original(chat):
                return None
            session = chat.id if self._can_be_new(chat.id) else self._new_id()
            self._database.execute(
                _INSERT_SESSION,
                (session, chat.model, chat.title, started, started, chat.source, tags),
            )
            tip = None
            for one in chat.messages:
                created = one.created or started
                tip = self.insert(session, tip, one.message, state=one.state, created=created)
        return session

    def _has_source(self, chat: ImportedChat) -> bool:
        query = "SELECT 1 FROM sessions WHERE source = ?"
        return bool(self._database.rows(query, (chat.source,)))

    def _has_original(self, chat: ImportedChat) -> bool:
        """Whether the session that the chat was exported from holds all of its messages.

        It is found by its id or, for exports without one, by the moment at which it began.
        """
        began = chat.created or None  # NULL equals nothing
        query = "SELECT id FROM sessions WHERE id = ? OR created = ?"
        imported = {_content(one.message) for one in chat.messages}
        return any(
            imported <= {_content(one.message) for one in self.tree(row["id"])}
            for row in self._database.rows(query, (chat.id, began))
        )

    def _can_be_new(self, session: str) -> bool:
        """Whether a text is a valid session id that no session has yet."""
        valid = len(session) == _ID_LENGTH and set(session) <= set(_ID_LETTERS)
        return valid and not self._database.rows("SELECT 1 FROM sessions WHERE id = ?", (session,))

    def _new_id(self) -> str:
        return "".join(secrets.choice(_ID_LETTERS) for _ in range(_ID_LENGTH))

    def shrink(self) -> None:
        """Give the space of removed messages back to the disk and overwrite their text."""
        with explained(self.path, ADVICE):
            self._database.execute("INSERT INTO search(search) VALUES ('optimize')")
            self._database.execute("VACUUM")
            self._database.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def backup(self, path: Path) -> None:
        """Copy the whole history, consistently even while other processes write."""
        make_private(path, ADVICE)
        with explained(path, ADVICE):
            target = sqlite3.connect(path)
            try:
                self._database.connection.backup(target)
            finally:
                target.close()


def _content(message: Message) -> tuple[str, str, str]:
    return message.role, message.text, message.input
