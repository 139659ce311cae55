"""Every chat, kept in one SQLite file: parent-linked messages, and sessions that point at their last one.

A chat never changes a text and never removes a message: undo moves the session's tip back, a new answer becomes a sibling of the old one, a
fork is a second pointer. What a method has written is on disk when it returns. Writers go through a Line (see there): several processes may
hold one session.
"""

import secrets
import sqlite3
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import msgspec

from llmchat.conversation import Conversation, Mark, Message
from llmchat.errors import UsageError
from llmchat.history import rows
from llmchat.history.database import Database, explained, make_private
from llmchat.history.imports import Imported
from llmchat.history.types import Hit, Record, Session

# Letters that cannot be taken for one another when an id is read aloud or typed.
_ID_LETTERS, _ID_LENGTH = "0123456789abcdefghjkmnpqrstvwxyz", 8

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
_ORPHANS = "SELECT id FROM messages WHERE session NOT IN (SELECT id FROM sessions) ORDER BY id DESC"


class History:
    """The history at `path`; None keeps it in memory and leaves no trace."""

    def __init__(self, path: Path | None, now: Callable[[], float] = time.time):
        self.path = path
        self._now = now
        self._database = Database(path)

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

    def begin(
        self,
        model: str,
        opens: Mapping[str, Any] | None = None,
        settings: Mapping[str, Any] | None = None,
    ) -> str:
        """A new, empty session; returns its id. opens, settings: see Session."""
        now, session = self._now(), self._new_id()
        with self.transaction():
            self._database.execute(
                "INSERT INTO sessions(id, model, created, updated) VALUES (?, ?, ?, ?)",
                (session, model, now, now),
            )
        self.remember(session, model, opens or {}, settings or {})
        return session

    def remember(
        self, session: str, model: str, opens: Mapping[str, Any], settings: Mapping[str, Any]
    ) -> None:
        """Keep another model, and other settings, with a session."""
        known = (msgspec.json.encode(values).decode() for values in (opens, settings))
        with self.transaction():
            self._database.execute(
                "UPDATE sessions SET model = ?, opens = ?, settings = ? WHERE id = ?",
                (model, *known, session),
            )

    def take(self, chat: Imported) -> str | None:
        """Store a chat from elsewhere as a session; returns its id, or None where the same chat, or the session it was exported from, is here."""
        started = (
            chat.created
            or next((said.created for said in chat.messages if said.created), 0.0)
            or self._now()
        )
        with self.transaction():
            if self._database.rows(
                "SELECT 1 FROM sessions WHERE source = ?", (chat.source,)
            ) or self._exported(chat):
                return None
            session = chat.id if self._may_be(chat.id) else self._new_id()
            self._database.execute(
                "INSERT INTO sessions(id, model, title, created, updated, source, tags) VALUES (?, ?, ?, ?, ?, ?, ?)",
                (
                    session,
                    chat.model,
                    chat.title,
                    started,
                    started,
                    chat.source,
                    msgspec.json.encode(chat.tags).decode(),
                ),
            )
            tip = None
            for said in chat.messages:
                tip = self.insert(
                    session, tip, said.message, state=said.state, created=said.created or started
                )
        return session

    def _exported(self, chat: Imported) -> bool:
        """Whether a session here holds every message of a chat, and is the one it was exported from: by its id or, in exports without one,
        by the moment at which it began."""
        query = "SELECT id FROM sessions WHERE id = ? OR (created = ? AND ? <> 0)"
        said = {(one.message.role, one.message.text, one.message.input) for one in chat.messages}
        for row in self._database.rows(query, (chat.id, chat.created, chat.created)):
            here = {
                (one.message.role, one.message.text, one.message.input)
                for one in self.tree(row["id"])
            }
            if said <= here:
                return True
        return False

    def _may_be(self, session: str) -> bool:
        """Whether a text can be the id of a new session."""
        sound = len(session) == _ID_LENGTH and set(session) <= set(_ID_LETTERS)
        return sound and not self._database.rows("SELECT 1 FROM sessions WHERE id = ?", (session,))

    def transaction(self) -> AbstractContextManager[None]:
        """All or nothing of the calls within it. What `Line` does in one step is one transaction."""
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
        """Within a transaction: a message behind `parent`, where the session ends from then on; returns its id."""
        created = self._now() if created is None else created
        files = {"files": message.files} if message.files else {}
        known = msgspec.json.encode({**(details or {}), **files}).decode()
        values = (
            parent,
            message.role,
            message.text,
            message.input,
            state,
            created,
            known,
            message.mark,
            message.covers,
            session,
        )
        cursor = self._database.execute(
            """INSERT INTO messages(parent, role, text, input, state, created, details, mark, covers, session)
            VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)""",
            values,
        )
        title = rows.title(message) if message.role == "user" else ""
        self._database.execute(
            """UPDATE sessions SET tip = ?, title = coalesce(nullif(title, ''), ?), updated = ?, turns = turns + ?,
            tokens = coalesce(nullif(?, 0), tokens) WHERE id = ?""",
            (cursor.lastrowid, title, created, message.role == "user", tokens, session),
        )
        return int(cursor.lastrowid or 0)

    def _require(self, session: str, message: int | None) -> None:
        """Another process may have deleted what a writer stands on."""
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

    def tip(self, session: str) -> int | None:
        """The id of the message where a session ends now. Raises UsageError where the session is gone."""
        self._require(session, None)
        (row,) = self._database.rows("SELECT tip FROM sessions WHERE id = ?", (session,))
        return None if row["tip"] is None else int(row["tip"])

    def branch(self, session: str, path: Sequence[int]) -> str:
        """Within a transaction: a new session with the title and tags of another, which ends where `path` ends; returns its id."""
        self._require(session, path[-1] if path else None)
        now, new = self._now(), self._new_id()
        self._database.execute(
            """INSERT INTO sessions(id, model, title, created, updated, tags, tokens, opens, settings)
            SELECT ?, model, title, ?, ?, tags, tokens, opens, settings FROM sessions WHERE id = ?""",
            (new, now, now, session),
        )
        self.point(new, path)
        return new

    def point(self, session: str, path: Sequence[int]) -> None:
        """Within a transaction: let a session end where `path` ends."""
        tip = path[-1] if path else None
        turns = sum(row["role"] == "user" for row in rows.line(self._database, tip))
        self._database.execute(
            "UPDATE sessions SET tip = ?, turns = ?, updated = ? WHERE id = ?",
            (tip, turns, self._now(), session),
        )

    def siblings(self, path: Sequence[int]) -> tuple[list[int], list[int], int]:
        """The path before its last answer, every answer to the same question, and which of them is the one on the path."""
        kept = set(path)
        line = [
            row
            for row in rows.line(self._database, path[-1] if path else None)
            if row["id"] in kept
        ]
        last = next(
            (index for index in range(len(line) - 1, -1, -1) if line[index]["role"] == "assistant"),
            None,
        )
        if last is None:
            raise UsageError("there is no answer yet")
        query = "SELECT id FROM messages WHERE parent IS ? AND role = 'assistant' ORDER BY id"
        answers = [int(row["id"]) for row in self._database.rows(query, (line[last]["parent"],))]
        return list(path[:last]), answers, answers.index(line[last]["id"])

    def mark(self, message: int, mark: Mark) -> None:
        """Within a transaction."""
        self._database.execute("UPDATE messages SET mark = ? WHERE id = ?", (mark, message))

    def line(self, tip: int | None) -> list[sqlite3.Row]:
        """The rows from a first message to `tip`."""
        return rows.line(self._database, tip)

    def path_of(self, session: str) -> list[sqlite3.Row]:
        """The rows of a session's present branch, first to last."""
        found = self._database.rows("SELECT tip FROM sessions WHERE id = ?", (session,))
        return rows.line(self._database, found[0]["tip"]) if found else []

    def rename(self, session: str, title: str) -> None:
        with self.transaction():
            self._database.execute(
                "UPDATE sessions SET title = ? WHERE id = ?", (title.strip(), session)
            )

    def tag(self, session: str, tags: Sequence[str]) -> None:
        with self.transaction():
            names = msgspec.json.encode(sorted(set(tags))).decode()
            self._database.execute("UPDATE sessions SET tags = ? WHERE id = ?", (names, session))

    def delete(self, *sessions: str) -> int:
        """Remove sessions and the messages that no other one shares; returns how many those were. Shared ones pass to who shares them."""
        with self.transaction():
            # Children point at parents; they are checked when the transaction ends.
            self._database.execute("PRAGMA defer_foreign_keys = ON")
            self._database.executemany(
                "DELETE FROM sessions WHERE id = ?", [(session,) for session in sessions]
            )
            self._database.execute(_UNNEEDED)
            removed = int(self._database.execute("SELECT changes()").fetchone()[0])
            self._inherit()
        return removed

    def _inherit(self) -> None:
        """Give messages that outlive their session to one that shares them."""
        orphans = self._database.rows(_ORPHANS)
        # Children mostly come before parents in this order, so that each finds an heir below it. Where they do not, another pass does.
        while orphans:
            for row in orphans:
                for heir in self._database.rows(_HEIR, {"message": row["id"]}):
                    self._database.execute(
                        "UPDATE messages SET session = ? WHERE id = ?", (heir["id"], row["id"])
                    )
            before, orphans = orphans, self._database.rows(_ORPHANS)
            if len(before) == len(orphans):
                return

    def unused_since(self, moment: float) -> list[Session]:
        """Sessions last used before a moment, the empty ones among them."""
        return [
            rows.session(row)
            for row in self._database.rows(
                "SELECT * FROM sessions WHERE updated < ? ORDER BY updated", (moment,)
            )
        ]

    def shrink(self) -> None:
        """Give the space of removed messages back to the disk, and what they said with it."""
        with explained(self.path):
            self._database.execute("INSERT INTO search(search) VALUES ('optimize')")
            self._database.execute("VACUUM")
            self._database.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def backup(self, path: Path) -> None:
        """A copy of the whole history, whole even while others write."""
        make_private(path)
        with explained(path):
            target = sqlite3.connect(path)
            try:
                self._database.connection.backup(target)
            finally:
                target.close()

    def conversation(self, session: str) -> Conversation:
        """The messages of the session's present branch, first to last."""
        return Conversation(tuple(rows.message(row) for row in self.path_of(session)))

    def messages(self, session: str) -> list[Record]:
        """The present branch with all that is known of each message."""
        return [rows.record(row) for row in self.path_of(session)]

    def tree(self, session: str) -> list[Record]:
        """Every message of the session's tree, those of left branches and of forks too, in the order in which they were written."""
        path = self.path_of(session)
        if not path:
            return []
        first = path[0]["id"]
        records = [rows.record(row) for row in rows.tree(self._database, first)]
        # In a damaged file the first message may have a parent, which is missing or comes after it.
        return [
            msgspec.structs.replace(one, parent=None) if one.id == first else one for one in records
        ]

    def sessions(self, limit: int | None = None, tag: str = "") -> list[Session]:
        """The sessions that have a message, the latest used first."""
        found = self._database.rows(
            """SELECT * FROM sessions WHERE tip IS NOT NULL AND (?1 = '' OR EXISTS (SELECT 1 FROM json_each(tags) WHERE value = ?1))
            ORDER BY updated DESC, rowid DESC LIMIT ?2""",
            (tag, -1 if limit is None else limit),
        )
        return [rows.session(row) for row in found]

    def latest(self) -> Session | None:
        return next(iter(self.sessions(1)), None)

    def find(self, prefix: str) -> Session:
        """The session whose id begins with `prefix`, or whose title it is; UsageError when there is none or more than one."""
        found = (
            self._database.rows(
                "SELECT * FROM sessions WHERE substr(id, 1, length(?1)) = lower(?1) OR title = ?1 ORDER BY updated DESC",
                (prefix,),
            )
            if prefix
            else []
        )
        if len(found) == 1:
            return rows.session(found[0])
        if found:
            raise UsageError(
                f"{len(found)} sessions begin with `{prefix}`",
                f"one of {', '.join(row['id'] for row in found[:5])}",
            )
        raise UsageError(f"no session begins with `{prefix}`", "`llmchat sessions list` shows them")

    def search(self, text: str, limit: int = 20) -> list[Hit]:
        """Messages that contain `text`, whatever its case, the newest first. The index is of trigrams; shorter texts are looked for one by one."""
        if len(text) < 3:
            found = self._database.rows(
                """SELECT messages.*, title, replace(substr(text, max(1, instr(lower(text), lower(?1)) - 30), 80), char(10), ' ') AS snippet
                FROM messages JOIN sessions ON sessions.id = session WHERE instr(lower(text), lower(?1)) > 0 ORDER BY messages.id DESC LIMIT ?2""",
                (text, limit),
            )
        else:
            found = self._database.rows(
                """SELECT messages.*, title, snippet(search, -1, '[', ']', '…', 40) AS snippet
                FROM search JOIN messages ON messages.id = search.rowid JOIN sessions ON sessions.id = messages.session
                WHERE search MATCH ? ORDER BY search.rowid DESC LIMIT ?""",
                ('"' + text.replace('"', '""') + '"', limit),
            )
        return [
            Hit(
                row["session"],
                row["title"],
                row["id"],
                row["role"],
                rows.moment(row["created"]),
                row["snippet"],
            )
            for row in found
        ]

    def _new_id(self) -> str:
        return "".join(secrets.choice(_ID_LETTERS) for _ in range(_ID_LENGTH))
