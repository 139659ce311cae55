"""Prompt-lookup decoding (Saxena 2023): drafts the tokens that followed an earlier occurrence.

The model reads a draft in one call and keeps the part that it would have chosen itself, so the
answer is identical; it only comes faster where text repeats (quoting, rewriting, code). A wrong
draft costs the reading of a few rows. So drafts are compared with every token of the answer, and a
draft ends where a token costs more than its chance of being right saves. With many answers in a
call, which share the fixed cost of the call, drafts are rarely worth it.
"""

import math
from typing import Protocol

# Tokens that must match for a draft; the longest match wins.
LONGEST, SHORTEST = 4, 3
# The most tokens of a draft.
MOST = 12
# The fixed cost of a call in rows: 14 at 135M and 11 at 1.1B parameters (int8, two Zen 5 cores).
PASS_ROWS = 12
# How much one outcome changes the estimated chance of the next draft, and the first estimate.
STEP, FIRST_CHANCE = 1 / 8, 0.5


class Drafts(Protocol):
    """Guesses the next tokens of one answer."""

    def feed(self, token: int) -> None:
        """Add a token of the answer."""
        ...

    def propose(self, room: int, together: int = 1) -> list[int]:
        """A draft of at most `room` tokens. together: answers in the same call."""
        ...

    def close(self) -> None:
        """The answer is complete, or given up."""
        ...


class PromptLookup:
    """Drafts for one answer, from its prompt and its own text. Each token takes constant time."""

    def __init__(self, prompt_ids: list[int]):
        self._ids = list(prompt_ids)
        self._ends: dict[tuple[int, ...], int] = {}
        self._indexed = 0
        # By the number of tokens that matched.
        self._chances = dict.fromkeys(range(SHORTEST, LONGEST + 1), FIRST_CHANCE)

    def feed(self, token: int) -> None:
        """See Drafts."""
        if match := self._match():
            size, end = match
            self._chances[size] += STEP * ((self._ids[end] == token) - self._chances[size])
        self._ids.append(token)

    def close(self) -> None:
        """See Drafts."""

    def propose(self, room: int, together: int = 1) -> list[int]:
        """See Drafts."""
        match = self._match() if room > 0 else None
        if match is None:
            return []
        size, end = match
        count = min(room, MOST, _worth(self._chances[size], together))
        # A match that overlaps the end repeats with its own period.
        period = len(self._ids) - end
        return [self._ids[end + index % period] for index in range(count)]

    def _match(self) -> tuple[int, int] | None:
        """How many of the last tokens occurred before, and where that occurrence ended."""
        self._index()
        for size in range(LONGEST, SHORTEST - 1, -1):
            if (
                len(self._ids) >= size
                and (end := self._ends.get(tuple(self._ids[-size:]))) is not None
            ):
                return size, end
        return None

    def _index(self) -> None:
        """Index the n-grams. A long prompt is indexed for the first draft, not before the first
        token.
        """
        for end in range(self._indexed, len(self._ids)):
            for size in range(SHORTEST, min(LONGEST, end) + 1):
                self._ends[tuple(self._ids[end - size : end])] = end
        self._indexed = len(self._ids)


def _worth(chance: float, together: int) -> int:
    """The length of a draft whose tokens are worth a row each: the n-th is right with chance^n."""
    cost = together / (together + PASS_ROWS)
    if chance <= cost:
        return 0
    return MOST if chance >= 1 else int(math.log(cost) / math.log(chance))
