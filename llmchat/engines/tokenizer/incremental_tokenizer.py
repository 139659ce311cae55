"""Tokenising texts that begin as earlier ones did: a conversation comes again with each turn, and only its end is new."""

from bisect import bisect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import accumulate
from re import Pattern

# Texts that are remembered, the latest first, and the characters they have together.
_REMEMBERED = 16
_REMEMBERED_CHARACTERS = 4_000_000


@dataclass(frozen=True)
class _Known:
    """A text and its ids. marks: where its special tokens begin, in the text and among the ids."""

    text: str
    ids: list[int]
    marks: list[tuple[int, int]]


_NOTHING = _Known("", [], [])


class IncrementalTokenizer:
    """A tokenizer that goes on where it left off.

    It looks for special tokens before it does anything else, and tokenises what stands between them apart. So the ids of a text up to a
    special token do not depend on what follows that token.
    """

    def __init__(
        self,
        encode: Callable[[str], list[int]],
        special: Mapping[str, int],
        pattern: Pattern[str],
        longest: int,
    ):
        """special: the tokens that are found in any text, wherever they stand, and take nothing of what stands beside them; pattern matches each.

        longest: characters of the longest token that is looked for before the others.
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
        """How many special tokens both texts begin with, with enough after each that it cannot be another token in one of them."""

        def differs(mark: tuple[int, int]) -> bool:
            end = mark[0] + self._longest
            return end > len(known.text) or not text.startswith(known.text[:end])

        return bisect(known.marks, False, key=differs)


def _bounded(known: tuple[_Known, ...]) -> tuple[_Known, ...]:
    """The first of these, as many as may be remembered."""
    sizes = accumulate(len(one.text) for one in known[:_REMEMBERED])
    return tuple(
        one for one, size in zip(known, sizes, strict=False) if size <= _REMEMBERED_CHARACTERS
    )
