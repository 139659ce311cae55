"""A loaded model that several chats use, one answer at a time."""

import os
import threading
from typing import Protocol

from llmchat.errors import LlmchatError
from llmchat.models.open_model import OpenModel

# Short, so that Ctrl-C reaches a program that waits for its turn.
_WAIT_STEP_S = 0.1


class InProgress(Protocol):
    """An answer that holds the model, until it ends or is cancelled."""

    @property
    def is_open(self) -> bool: ...

    def close(self) -> None: ...


class SharedModel:
    """A model, and the chats that use it. It is unloaded when the last one lets it go.

    It belongs to the process that loaded it: a fork has none of the threads that compute.
    """

    def __init__(self, opened: OpenModel):
        self.opened = opened
        self._changed = threading.Condition()
        self._holder: tuple[int, InProgress] | None = None
        self._users = 0
        self._process = os.getpid()

    def use(self) -> None:
        """Count one more chat."""
        with self._changed:
            self._users += 1

    def let_go(self) -> None:
        """Count one chat less; the last one unloads the model, unless this process is a fork."""
        if self._process != os.getpid():
            return
        with self._changed:
            self._users -= 1
            is_last = self._users == 0
        if is_last:
            self.opened.engine.unload()

    def take_turn(self, answer: InProgress) -> None:
        """Wait until no other answer is in progress.

        One that this thread began and left is cancelled: nobody else would ever end it. Raises
        LlmchatError in a fork, where the model would wait for threads that do not exist.
        """
        if self._process != os.getpid():
            raise LlmchatError(
                "this model was loaded before the process was forked",
                "load it in the new process, or start processes with `spawn`",
            )
        with self._changed:
            while self._holder is not None:
                thread, other = self._holder
                if other is answer:
                    return
                if thread == threading.get_ident() or not other.is_open:
                    other.close()
                    self._holder = None
                else:
                    self._changed.wait(_WAIT_STEP_S)
            self._holder = threading.get_ident(), answer

    def end_turn(self, answer: InProgress) -> None:
        """Let the next answer begin. A second call does nothing."""
        with self._changed:
            if self._holder is not None and self._holder[1] is answer:
                self._holder = None
                self._changed.notify_all()
