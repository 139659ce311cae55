"""Write one branch of a session's tree: each message follows what this writer has seen, never what
another process wrote since.

Each step checks, in its transaction, that the session still ends where this branch ends. Where
another process has moved the session on, the branch continues in a fork: a new session that shares
all messages up to there.
"""

import sqlite3
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from llmchat.conversation import Conversation, FoundPassage, Mark, Message
from llmchat.engines import Finish
from llmchat.errors import UsageError
from llmchat.history import rows
from llmchat.history.in_progress import AnswerLock, is_answered_now
from llmchat.history.store import History


class BranchWriter:
    """A session as one writer sees it.

    ids: its messages, first to last; left_session: the session it had to leave for a fork, until
    `take_left_session`.
    """

    def __init__(self, history: History, session: str):
        self._history = history
        self.session = session
        self.left_session: str | None = None
        self._answer_lock: AnswerLock | None = None
        path = history.path_of(session)
        asked = _last_spoken(path)
        if (
            asked is not None
            and path[asked]["role"] == "user"
            and is_answered_now(history.path, path[asked]["id"])
        ):
            # Another process answers this question; this writer branches off before it.
            path = path[:asked]
        self.ids = [int(row["id"]) for row in path]

    @property
    def tip(self) -> int | None:
        return self.ids[-1] if self.ids else None

    @property
    def conversation(self) -> Conversation:
        """The messages of this branch."""
        return Conversation(tuple(rows.message(row) for row in self._history.path_to(self.tip)))

    def append(
        self,
        message: Message,
        finish: Finish | None = None,
        details: Mapping[str, Any] | None = None,
        *,
        length: int | None = None,
    ) -> int:
        """Store a message after the last one, or after the first `length`; returns its id.

        A question is locked until `release`.
        """
        state = "cancelled" if finish and finish.reason == "cancelled" else "complete"
        known = (msgspec.to_builtins(finish) if finish else {}) | dict(details or {})
        tokens = finish.prompt_tokens + finish.reply_tokens if finish else 0
        kept = self.ids[:length]
        with self._history.transaction():
            session = self._writable_session()
            parent = kept[-1] if kept else None
            new = self._history.insert(
                session, parent, message, state=state, details=known, tokens=tokens
            )
            if message.role == "user":
                # Before the transaction ends: whoever sees the question must see its lock.
                self._lock_question(new)
        self._continue_in(session)
        self.ids = [*kept, new]
        return new

    def rewind(self, length: int, question: int | None = None) -> None:
        """Go back to the first `length` messages; the later ones stay in the tree.

        question: the index of a message that will be answered again, locked until `release`.
        """
        with self._history.transaction():
            session = self._writable_session()
            self._history.move_tip(session, self.ids[:length])
            if question is not None and question < min(length, len(self.ids)):
                self._lock_question(self.ids[question])
        self._continue_in(session)
        del self.ids[length:]

    def alternative(self, step: int) -> tuple[int, int]:
        """Replace the last answer by the next (1) or previous (-1) one to the same question.

        Returns its number, counted from 1, and how many answers there are.
        """
        with self._history.transaction():
            session = self._writable_session()
            kept, siblings, number = self._history.siblings(self.ids)
            chosen = _chosen(number + step, siblings, step)
            self._history.move_tip(session, [*kept, chosen])
        self._continue_in(session)
        self.ids = [*kept, chosen]
        return number + step + 1, len(siblings)

    def mark(self, index: int, mark: Mark) -> None:
        """Mark the message at `index`, in every fork that shares it."""
        with self._history.transaction():
            self._history.mark(self.ids[index], mark)

    def mark_passages(self, index: int, passages: tuple[FoundPassage, ...]) -> None:
        """Store the marks of a message's passages, in every fork that shares it."""
        with self._history.transaction():
            self._history.mark_passages(self.ids[index], passages)

    def fork(self) -> str:
        """Continue in a new session that shares every message of this branch; returns its id."""
        with self._history.transaction():
            session = self._history.fork(self.session, self.ids)
        self.session = session
        return session

    def release(self) -> None:
        """Unlock the question: no answer to it is being written any more."""
        if self._answer_lock:
            self._answer_lock.release()
            self._answer_lock = None

    def take_left_session(self) -> str | None:
        """The session left since the last call because another process had written to it."""
        left, self.left_session = self.left_session, None
        return left

    def is_current(self) -> bool:
        """Whether the session still ends where this branch ends."""
        return self._history.tip(self.session) == self.tip

    def _writable_session(self) -> str:
        """Within a transaction: this session, or a fork where the session has moved on."""
        if self.is_current():
            return self.session
        return self._history.fork(self.session, self.ids)

    def _continue_in(self, session: str) -> None:
        """Called after the transaction: one that is rolled back must not change this writer."""
        if session != self.session:
            self.left_session, self.session = self.session, session

    def _lock_question(self, question: int) -> None:
        self.release()
        self._answer_lock = AnswerLock(self._history.path, question)


def _last_spoken(path: Sequence[sqlite3.Row]) -> int | None:
    """The index of the last question or answer."""
    spoken = (i for i, row in enumerate(path) if row["role"] in ("user", "assistant"))
    return max(spoken, default=None)


def _chosen(number: int, siblings: list[int], step: int) -> int:
    if 0 <= number < len(siblings):
        return siblings[number]
    which = f"this is the {'last' if step > 0 else 'first'} of {len(siblings)} answers"
    raise UsageError(
        which if len(siblings) > 1 else "there is only one answer",
        "/regen makes another" if step > 0 else "",
    )
