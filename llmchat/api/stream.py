"""An answer in progress: its events, or its text piece by piece."""

import inspect
import weakref
from collections.abc import Callable, Generator, Iterator
from typing import Any, Generic, Self, TypeVar

from llmchat.api.answer import Answer
from llmchat.chat import Event
from llmchat.errors import UsageError

E = TypeVar("E")


class Slot:
    """What an answer in progress and its chat share: how to cancel it, and how it ended.

    It does not keep the answer alive: one that nobody holds any more is cancelled. is_last: whether
    the answer is that of the last turn of a role.
    """

    def __init__(self) -> None:
        self.answer: Answer[Any] | None = None
        self.is_last = False
        self._items: Callable[[], Generator[Any] | None] = lambda: None

    def hold(self, items: Generator[Any]) -> None:
        self._items = weakref.ref(items)

    @property
    def is_open(self) -> bool:
        """Whether the answer has begun and not ended."""
        items = self._items()
        return items is not None and inspect.getgeneratorstate(items) != inspect.GEN_CLOSED

    @property
    def is_running(self) -> bool:
        """Whether it is being computed this moment, or one of its tools runs."""
        items = self._items()
        return items is not None and inspect.getgeneratorstate(items) == inspect.GEN_RUNNING

    def close(self) -> None:
        """Cancel the answer, unless it has ended."""
        if (items := self._items()) is not None:
            items.close()


class Running(Generic[E], Iterator[E]):
    """The events or the pieces of one answer. The question is asked with the first `next`.

    `close`, or leaving a `with` block early, cancels the answer; what was written is stored.
    """

    def __init__(self, begin: Callable[[Slot], Generator[E]]):
        self._slot = Slot()
        self._items = begin(self._slot)
        self._slot.hold(self._items)

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> E:
        return next(self._items)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Cancel the answer, unless it has ended."""
        self._items.close()

    @property
    def answer(self) -> Answer[Any]:
        """The whole answer. Raises UsageError before its end."""
        if self._slot.answer is None:
            raise UsageError("the answer has not ended", "iterate first, or use `chat.ask`")
        return self._slot.answer


class Events(Running[Event]):
    """The events of an answer: its window, thinking, text, tool calls, and its end."""


class Pieces(Running[str]):
    """The text of an answer, piece by piece. A notebook shows it as Markdown while it grows."""

    def _ipython_display_(self) -> None:
        from llmchat.api.notebook import show_growing

        show_growing(self)
