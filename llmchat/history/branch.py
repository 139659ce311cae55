"""A writer's own line in the tree of a session: what it writes stands behind what it has seen, never behind what another process wrote since.

Each step checks, in its transaction, that the session still ends where this line ends. Where another process has moved it on, the line goes
on in a session of its own: a fork at the last message that both share.
"""

from collections.abc import Mapping
from typing import Any

import msgspec

from llmchat.conversation import Conversation, Mark, Message
from llmchat.engines import Finish
from llmchat.errors import UsageError
from llmchat.history import rows
from llmchat.history.in_progress import Answering, is_answered_now
from llmchat.history.store import History


class Line:
    """A session as one writer sees it. `ids` are its messages, first to last; `left` is the session it had to leave, until `take_left`."""

    def __init__(self, history: History, session: str):
        self._history = history
        self.session = session
        self.left: str | None = None
        self._answering: Answering | None = None
        path = history.path_of(session)
        asked = next(
            (
                index
                for index in range(len(path) - 1, -1, -1)
                if path[index]["role"] in ("user", "assistant")
            ),
            None,
        )
        if (
            asked is not None
            and path[asked]["role"] == "user"
            and is_answered_now(history.path, path[asked]["id"])
        ):
            # Another process owns this question. What is said here is said beside it, not behind it.
            path = path[:asked]
        self.ids = [int(row["id"]) for row in path]

    @property
    def tip(self) -> int | None:
        return self.ids[-1] if self.ids else None

    @property
    def conversation(self) -> Conversation:
        """What was said on this line."""
        return Conversation(tuple(rows.message(row) for row in self._history.line(self.tip)))

    def append(
        self,
        message: Message,
        finish: Finish | None = None,
        details: Mapping[str, Any] | None = None,
        *,
        length: int | None = None,
    ) -> int:
        """Store a message behind the last one of this line, or behind its first `length`; returns its id. A question is locked until
        `release`."""
        state = "cancelled" if finish and finish.reason == "cancelled" else "complete"
        known = (msgspec.to_builtins(finish) if finish else {}) | dict(details or {})
        tokens = finish.prompt_tokens + finish.reply_tokens if finish else 0
        kept = self.ids[:length]
        with self._history.transaction():
            session = self._own()
            parent = kept[-1] if kept else None
            new = self._history.insert(
                session, parent, message, state=state, details=known, tokens=tokens
            )
            if message.role == "user":
                # Before the transaction ends: whoever sees the question sees that it is being answered.
                self._answer(new)
        self._go_on(session)
        self.ids = [*kept, new]
        return new

    def rewind(self, length: int, question: int | None = None) -> None:
        """Go back to the first `length` messages; what stood behind them stays as a branch. question: the index of one that is to be
        answered again, locked until `release`."""
        with self._history.transaction():
            session = self._own()
            self._history.point(session, self.ids[:length])
            if question is not None and question < min(length, len(self.ids)):
                self._answer(self.ids[question])
        self._go_on(session)
        del self.ids[length:]

    def alternative(self, step: int) -> tuple[int, int]:
        """Go from the last answer to the next (1) or the earlier (-1) one to the same question; returns its number and how many there are."""
        with self._history.transaction():
            session = self._own()
            kept, siblings, number = self._history.siblings(self.ids)
            chosen = _chosen(number + step, siblings, step)
            self._history.point(session, [*kept, chosen])
        self._go_on(session)
        self.ids = [*kept, chosen]
        return number + step + 1, len(siblings)

    def mark(self, index: int, mark: Mark) -> None:
        """Mark the message at `index`; forks share it."""
        with self._history.transaction():
            self._history.mark(self.ids[index], mark)

    def fork(self) -> str:
        """Go on in a new session that shares everything of this line; returns its id."""
        with self._history.transaction():
            session = self._history.branch(self.session, self.ids)
        self.session = session
        return session

    def release(self) -> None:
        """No answer is being written any more."""
        if self._answering:
            self._answering.release()
            self._answering = None

    def take_left(self) -> str | None:
        """The session that was left since the last call because another process had gone on with it."""
        left, self.left = self.left, None
        return left

    def is_current(self) -> bool:
        """Whether the session still ends where this line ends."""
        return self._history.tip(self.session) == self.tip

    def _own(self) -> str:
        """The session to write to, within a transaction: this one, or a fork of it where it no longer ends where this line does."""
        if self.is_current():
            return self.session
        return self._history.branch(self.session, self.ids)

    def _go_on(self, session: str) -> None:
        """Only once the transaction has ended: what is rolled back must leave the line as it was."""
        if session != self.session:
            self.left, self.session = self.session, session

    def _answer(self, question: int) -> None:
        self.release()
        self._answering = Answering(self._history.path, question)


def _chosen(number: int, siblings: list[int], step: int) -> int:
    if 0 <= number < len(siblings):
        return siblings[number]
    which = f"this is the {'last' if step > 0 else 'first'} of {len(siblings)} answers"
    raise UsageError(
        which if len(siblings) > 1 else "there is only one answer",
        "/regen makes another" if step > 0 else "",
    )
