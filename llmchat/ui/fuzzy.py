"""Fuzzy search: how well words fit texts, and which letters they match.

A word fits where it begins a word, then anywhere else, then as initials (`pod` in `Parser of
Dates`), then as letters in order that lie close together (`prsr` in `parser`).
"""

import re
import unicodedata
from collections.abc import Iterable, Sequence
from functools import lru_cache

from msgspec import Struct

_WHOLE_WORD, _WORD_START, _INSIDE, _INITIALS, _LETTERS = 100, 90, 70, 60, 40
_START_BONUS = 5
# Letters in order may be spread over so many times the length of the word.
_SPREAD = 3
_WORDS = re.compile(r"\w+")


class Fit(Struct, frozen=True):
    """How well a word fits a text, and the offsets of the letters that it matches."""

    score: int
    letters: tuple[int, ...]


class Candidate(Struct, frozen=True):
    """Texts to search, the most important first, as `folded` makes them.

    names: how many of them, from the first, are also searched for initials and scattered letters,
    which fit almost any long text.
    """

    texts: tuple[str, ...]
    names: int


class Found(Struct, frozen=True):
    """A candidate that fits. letters: for each of its texts the offsets that are matched."""

    index: int
    score: float
    letters: tuple[tuple[int, ...], ...]


def folded(text: str) -> str:
    """The text in small letters without accents, letter for letter as long as it was."""
    return text.lower() if text.isascii() else "".join(map(_folded_letter, text))


def search(query: str, candidates: Sequence[Candidate]) -> list[Found]:
    """The candidates that every word of the query fits, best first.

    Equal ones stay in their order; without a query, all of them do.
    """
    words = folded(query).split()
    if not words:
        return [Found(index, 0, ((),) * len(one.texts)) for index, one in enumerate(candidates)]
    found = [match for index in range(len(candidates))
             if (match := _match(words, index, candidates[index]))]  # fmt: skip
    return sorted(found, key=lambda one: -one.score)


def fit(word: str, text: str) -> Fit | None:
    """How a folded word fits a folded text; None where it does not."""
    return _substring(word, text) or _scattered(word, text)


@lru_cache(maxsize=4096)
def _folded_letter(letter: str) -> str:
    base = unicodedata.normalize("NFD", letter)[0].lower()
    return base if len(base) == 1 else letter


def _match(words: Iterable[str], index: int, candidate: Candidate) -> Found | None:
    """Each word counts where it fits best; earlier texts weigh more."""
    score, letters = 0.0, [set[int]() for _ in candidate.texts]
    for word in words:
        most, place, best = _best_place(word, candidate)
        if best is None:
            return None
        score += most
        letters[place].update(best.letters)
    return Found(index, score, tuple(tuple(sorted(one)) for one in letters))


def _best_place(word: str, candidate: Candidate) -> tuple[float, int, Fit | None]:
    most, best_place, best = 0.0, 0, None
    for place, text in enumerate(candidate.texts):
        weight = _weight(place)
        if most >= (_WHOLE_WORD + _START_BONUS) * weight:
            break
        found = fit(word, text) if place < candidate.names else _substring(word, text)
        if found and found.score * weight > most:
            most, best_place, best = found.score * weight, place, found
    return most, best_place, best


def _weight(place: int) -> float:
    return 1 / (1 + place / 4)


def _substring(word: str, text: str) -> Fit | None:
    best: Fit | None = None
    start = text.find(word)
    while start >= 0 and (best is None or best.score < _WORD_START):
        score = _substring_score(text, start, start + len(word))
        if best is None or score > best.score:
            best = Fit(score, tuple(range(start, start + len(word))))
        start = text.find(word, start + 1)
    return best


def _substring_score(text: str, start: int, end: int) -> int:
    begins = start == 0 or not text[start - 1].isalnum()
    ends = end == len(text) or not text[end].isalnum()
    score = (_WHOLE_WORD if ends else _WORD_START) if begins else _INSIDE
    return score + (_START_BONUS if start == 0 else 0)


def _scattered(word: str, text: str) -> Fit | None:
    """The word as initials, or as letters in order from where the first of them end."""
    end = -1
    for letter in word:
        end = text.find(letter, end + 1)
        if end < 0:
            return None
    return _initials(word, text) or _letters(word, text, end + 1)


def _initials(word: str, text: str) -> Fit | None:
    starts = [match.start() for match in _WORDS.finditer(text)]
    at = "".join(text[start] for start in starts).find(word)
    return Fit(_INITIALS, tuple(starts[at : at + len(word)])) if at >= 0 else None


def _letters(word: str, text: str, end: int) -> Fit | None:
    """The letters before `end`, each as far to the right as it can be."""
    places, place = [], end
    for letter in reversed(word):
        place = text.rfind(letter, 0, place)
        places.append(place)
    spread = end - place
    if spread > _SPREAD * len(word):
        return None
    return Fit(_LETTERS - min(spread - len(word), _LETTERS - 1), tuple(reversed(places)))
