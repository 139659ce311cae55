"""Drafts without a second model: what followed the last time these tokens were said may follow again (prompt lookup, Saxena 2023).

The model reads a draft in one pass and keeps the part that it would have said itself, so that the answer is the same, token by token; only
where text repeats (quoting, rewriting, code) it comes faster. A draft that is wrong costs the reading of a few rows. So what would have been
drafted is compared with every token that is said, and a draft is as long as each of its tokens is likelier to be right than it costs: with many answers
in one pass, which share what a pass costs besides its rows, that is seldom.
"""

import math

# Tokens that must match before a draft is made; the longest match wins.
LONGEST, SHORTEST = 4, 3
# Tokens of a draft at most.
MOST = 12
# A pass costs, besides the rows that it reads, as much as so many rows: 14 at 135M and 11 at 1.1B parameters (int8, two cores of a Zen 5).
PASS_ROWS = 12
# How far one guess moves the chance that is given to the next ones, and that chance at first.
STEP, FIRST_CHANCE = 1 / 8, 0.5


class PromptLookup:
    """Proposals for one answer, from its prompt and from itself. A look-up takes constant time, and so does each token."""

    def __init__(self, prompt_ids: list[int]):
        self._ids = list(prompt_ids)
        self._ends: dict[tuple[int, ...], int] = {}
        self._indexed = 0
        # By the tokens that matched.
        self._chances = dict.fromkeys(range(SHORTEST, LONGEST + 1), FIRST_CHANCE)

    def feed(self, token: int) -> None:
        """A token of the answer."""
        if match := self._match():
            size, end = match
            self._chances[size] += STEP * ((self._ids[end] == token) - self._chances[size])
        self._ids.append(token)

    def propose(self, room: int, together: int = 1) -> list[int]:
        """Tokens that may come next, at most `room`. together: answers in the same pass."""
        match = self._match() if room > 0 else None
        if match is None:
            return []
        size, end = match
        count = min(room, MOST, _worth(self._chances[size], together))
        # A text that has come back to itself goes round in a circle.
        period = len(self._ids) - end
        return [self._ids[end + index % period] for index in range(count)]

    def _match(self) -> tuple[int, int] | None:
        """How many of the last tokens were said before, and where that ended."""
        self._index()
        for size in range(LONGEST, SHORTEST - 1, -1):
            if (
                len(self._ids) >= size
                and (end := self._ends.get(tuple(self._ids[-size:]))) is not None
            ):
                return size, end
        return None

    def _index(self) -> None:
        """Note what each n-gram was followed by. A long prompt is gone through when the first draft is due, not before the first token."""
        for end in range(self._indexed, len(self._ids)):
            for size in range(SHORTEST, min(LONGEST, end) + 1):
                self._ends[tuple(self._ids[end - size : end])] = end
        self._indexed = len(self._ids)


def _worth(chance: float, together: int) -> int:
    """Tokens of a draft that are worth a row each: the n-th of them is right with chance^n."""
    cost = together / (together + PASS_ROWS)
    if chance <= cost:
        return 0
    return MOST if chance >= 1 else int(math.log(cost) / math.log(chance))
