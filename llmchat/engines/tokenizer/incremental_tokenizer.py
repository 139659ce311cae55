"""Tokenises a text that begins like an earlier one from where the two part.

A conversation is tokenised again with each turn, and only its end is new.
"""

from bisect import bisect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import accumulate
from re import Pattern

# The most texts that are remembered, and the most characters they have together.
_REMEMBERED = 16
_REMEMBERED_CHARACTERS = 4_000_000


@dataclass(frozen=True)
class _Known:
    """A text and its ids. marks: the positions of its special tokens in the text and in the ids."""

    text: str
    ids: list[int]
    marks: list[tuple[int, int]]


_NOTHING = _Known("", [], [])


class IncrementalTokenizer:
    """`encode` with a memory of the texts it encoded last.

    A tokenizer splits a text at its special tokens first and encodes the parts separately. So the
    ids up to a special token do not depend on the text after it.
    """

    def __init__(
        self,
        encode: Callable[[str], list[int]],
        special: Mapping[str, int],
        pattern: Pattern[str],
        longest: int,
    ):
        """special: the tokens that split any text and absorb no neighbouring characters; pattern
        matches each of them. longest: characters of the longest token that splits a text.
        """
        self._encode = encode
        self._numbers = frozenset(special.values())
        self._pattern = pattern
        self._longest = longest
        self._known: tuple[_Known, ...] = ()

    def ids(self, text: str) -> list[int]:
        """The same as `encode(text)`."""
        if not self._numbers:
            return self._encode(text)
        shared = max(
            ((self._shared(known, text), known) for known in self._known),
            key=lambda found: found[0],
            default=(0, _NOTHING),
        )
        count, known = shared
        start, kept = known.marks[count - 1] if count else (0, 0)
        ids = known.ids[:kept] + self._encode(text[start:])
        places = [match.start() for match in self._pattern.finditer(text, start)]
        indices = [index for index in range(kept, len(ids)) if ids[index] in self._numbers]
        if len(places) == len(indices):
            marks = known.marks[: max(0, count - 1)] + list(zip(places, indices, strict=True))
            others = tuple(
                one for one in self._known if one is not known or start < len(one.text) / 2
            )
            self._known = _bounded((_Known(text, ids, marks), *others))
        return ids

    def _shared(self, known: _Known, text: str) -> int:
        """The number of special tokens that both texts begin with.

        Enough text follows each that it cannot be the start of a longer token in one of them.
        """

        def differs(mark: tuple[int, int]) -> bool:
            end = mark[0] + self._longest
            return end > len(known.text) or not text.startswith(known.text[:end])

        return bisect(known.marks, False, key=differs)


def _bounded(known: tuple[_Known, ...]) -> tuple[_Known, ...]:
    """The first of these texts, as many as can be remembered."""
    sizes = accumulate(len(one.text) for one in known[:_REMEMBERED])
    return tuple(
        one for one, size in zip(known, sizes, strict=False) if size <= _REMEMBERED_CHARACTERS
    )
