"""DRY ("don't repeat yourself"): penalises tokens that extend a sequence which occurred before.

By p-e-w (oobabooga/text-generation-webui, pull request 5637) as llama.cpp implements it
(src/llama-sampler.cpp): a token that would extend a repeated sequence of n tokens loses
multiplier * base ** (n - allowed_length). A sequence reaches back to the last breaker, and a token
that contains a breaker is never penalised. A breaker that spans tokens is found in their text;
llama.cpp requires that the tokens end where it ends.
"""

import math
from collections.abc import Callable, Sequence

from llmchat.engines import Sampling

# llama.cpp's limit of the exponent: the logarithm of the largest float32.
_LARGEST_LOG = 88.7228391
_SMALLEST_BASE = 1.000001


class Dry:
    """The state of one answer. spelling: the bytes of a token.

    The prompt costs time in its length, a token in the number of its earlier occurrences.
    """

    def __init__(
        self, sampling: Sampling, prompt_ids: Sequence[int], spelling: Callable[[int], bytes]
    ):
        self._sampling = sampling
        self._spelling = spelling
        self._breakers = tuple(text.encode() for text in sampling.dry_sequence_breakers)
        self._most = _most_extra(sampling.dry_base)
        # A longer match has the same penalty.
        self._longest = sampling.dry_allowed_length + self._most
        self._ids = list(prompt_ids)
        self._places: dict[int, list[int]] = {}
        for place, token in enumerate(self._ids):
            self._places.setdefault(token, []).append(place)
        # Place of an earlier token → how many tokens up to it equal the last ones of the text.
        self._matches = _suffix_matches(self._ids)
        self._unbroken, self._tail = 0, b""
        for token in self._ids[-self._longest - max(map(len, self._breakers), default=0) :]:
            self._follow_breakers(token)

    def feed(self, token: int) -> None:
        """Add a token of the answer."""
        before, longest = self._matches, self._longest
        places = self._places.setdefault(token, [])
        self._matches = {place: min(before.get(place - 1, 0) + 1, longest) for place in places}
        places.append(len(self._ids))
        self._ids.append(token)
        self._follow_breakers(token)

    def penalties(self) -> dict[int, float]:
        """Token → what is subtracted from its logit."""
        allowed = self._sampling.dry_allowed_length
        if self._unbroken < allowed:
            return {}
        lengths: dict[int, int] = {}
        for place, length in self._matches.items():
            length = min(length, self._unbroken)
            token = self._ids[place + 1]
            if length >= allowed and length > lengths.get(token, 0):
                lengths[token] = length
        return {
            token: self._penalty(length - allowed)
            for token, length in lengths.items()
            if not self._breaks(self._spelling(token))
        }

    def _penalty(self, extra: int) -> float:
        return self._sampling.dry_multiplier * self._sampling.dry_base ** min(extra, self._most)

    def _breaks(self, text: bytes) -> bool:
        return any(breaker in text for breaker in self._breakers)

    def _follow_breakers(self, token: int) -> None:
        """Count the tokens since the last breaker, which can span several tokens."""
        piece = self._spelling(token)
        broken = any(
            breaker in self._tail[max(0, len(self._tail) - len(breaker) + 1) :] + piece
            for breaker in self._breakers
        )
        self._unbroken = 0 if broken else self._unbroken + 1
        kept = max(map(len, self._breakers), default=1) - 1
        self._tail = (self._tail + piece)[-kept:] if kept else b""


def _most_extra(base: float) -> int:
    """The largest exponent that llama.cpp applies."""
    return int(_LARGEST_LOG / math.log(base)) if base > _SMALLEST_BASE else 0


def _suffix_matches(ids: Sequence[int]) -> dict[int, int]:
    """Place of a token → how many tokens up to it equal the last ones; none where it is 0.

    The Z-algorithm on the reversed text, in linear time.
    """
    text, size = ids[::-1], len(ids)
    lengths = [0] * size
    left = right = 0
    for start in range(1, size):
        length = min(lengths[start - left], right - start) if start < right else 0
        while start + length < size and text[length] == text[start + length]:
            length += 1
        if start + length > right:
            left, right = start, start + length
        lengths[start] = length
    return {size - 1 - start: length for start, length in enumerate(lengths) if length}
