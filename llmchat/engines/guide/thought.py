"""Where an answer is in its thoughts, from the bytes of its tokens."""

import codecs
from typing import Literal

from llmchat.prompt import ThinkingMarks

Event = Literal["", "opened", "closed"]
# The most tokens by which a thought exceeds its budget, to complete a character.
_GRACE = 3


class Thoughts:
    """Follows the marks of thoughts. budget: the most tokens within them, None for any number."""

    def __init__(self, marks: ThinkingMarks, budget: int | None):
        self.inside = marks.inside
        self.opening, self.closing = marks.opening, marks.closing
        self.budget = budget
        self._spent = 0
        # The last bytes, in which the next mark can have begun.
        self._tail = b""
        self._characters = codecs.getincrementaldecoder("utf-8")("replace")

    @property
    def used_up(self) -> bool:
        """Whether the thought has to be closed now."""
        if not self.inside or self.budget is None or self._spent < self.budget:
            return False
        incomplete = bool(self._characters.getstate()[0])
        return not incomplete or self._spent >= self.budget + _GRACE

    @property
    def missing(self) -> tuple[bytes, ...]:
        """What completes the next mark: all of it, and the rest where it may have begun."""
        mark = self._mark
        begun = (size for size in range(len(mark) - 1, 0, -1) if self._tail.endswith(mark[:size]))
        return (mark, *(mark[size:] for size in begun))

    def feed(self, spelling: bytes) -> Event:
        """Add a token; tells whether a mark is complete with it."""
        self._characters.decode(spelling)
        self._spent += self.inside
        text = self._tail + spelling
        place = text.find(self._mark)
        self._tail = text[-len(self._mark) :]
        if place < 0:
            return ""
        self._tail = b""
        self.inside = not self.inside
        return "closed" if not self.inside else "opened"

    @property
    def _mark(self) -> bytes:
        return (self.closing if self.inside else self.opening).encode()
