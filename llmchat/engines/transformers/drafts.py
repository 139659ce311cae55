"""Drafts without a second model: what followed the last time these tokens were said may follow again (prompt lookup, Saxena 2023).

The model reads a draft in one pass and keeps the part that it would have said itself, so that the answer is the same, token by token; only
where text repeats (quoting, rewriting, code) it comes faster. A draft that is wrong costs the reading of a few rows, so drafts are made only after long
matches and pause while they lose.
"""

# Tokens that must match before a draft is made; the longest match wins.
LONGEST, SHORTEST = 4, 3
# Tokens of a draft: it doubles while drafts are right and halves while they are wrong.
FIRST, MOST = 4, 12
# Answer tokens without a draft after one of which nothing was right, doubling each time.
PAUSE = 8


class Drafts:
    """Proposals for one answer, from its prompt and from itself. A look-up takes constant time, and so does each token."""

    def __init__(self, prompt_ids: list[int]):
        self._ids = list(prompt_ids)
        self._ends: dict[tuple[int, ...], int] = {}
        self._indexed = 0
        self._size, self._pause, self._wait = FIRST, PAUSE, 0

    def feed(self, token: int) -> None:
        """A token of the answer."""
        self._ids.append(token)
        self._wait = max(0, self._wait - 1)

    def propose(self, room: int) -> list[int]:
        """Tokens that may come next, at most `room`."""
        if self._wait or room < 1:
            return []
        self._index()
        for size in range(LONGEST, SHORTEST - 1, -1):
            found = self._ends.get(tuple(self._ids[-size:])) if len(self._ids) >= size else None
            if found is not None:
                # A text that has come back to itself goes round in a circle.
                period = len(self._ids) - found
                return [self._ids[found + index % period] for index in range(min(room, self._size))]
        return []

    def told(self, right: int, drafted: int) -> None:
        """How much of the last draft was right."""
        if right == drafted:
            self._size = min(MOST, 2 * self._size)
            self._pause = PAUSE
        elif right == 0:
            self._size, self._wait, self._pause = FIRST, self._pause, 2 * self._pause
        else:
            self._size = max(FIRST, right + 1)

    def _index(self) -> None:
        """Note what each n-gram was followed by. A long prompt is gone through when the first draft is due, not before the first token."""
        for end in range(self._indexed, len(self._ids)):
            for size in range(SHORTEST, min(LONGEST, end) + 1):
                self._ends[tuple(self._ids[end - size : end])] = end
        self._indexed = len(self._ids)
