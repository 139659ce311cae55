"""Counts the tokens of a text, but stops early for one that is certainly too long.

Counting takes time and memory in proportion to the text, and a part that does not fit is enough.
"""

from llmchat.engines import Counter

# The most characters per token in ordinary text: the part counted first has this many per token.
_CHARACTERS = 8
# A part of a text may have a few more tokens than the same characters have within the text.
_MARGIN, _FEW = 1.1, 64
# Up to this many times the limit, an exact count costs little and makes the message exact.
_FAR = 4


def surely_over(tokens: int, limit: int) -> bool:
    """Whether a text with this many tokens, counted in parts, has more than `limit` as a whole."""
    return tokens > limit * _MARGIN + _FEW


def far_over(tokens: int, limit: int) -> bool:
    """Whether a text of about this many tokens is not worth an exact count."""
    return tokens > _FAR * limit + 1024


def count_within(engine: Counter, text: str, limit: int) -> int:
    """The tokens of a text: exact, or estimated from its beginning if certainly above `limit`."""
    length = max(4096, _CHARACTERS * limit)
    while length < len(text):
        tokens = engine.count(text[:length])
        if surely_over(tokens, limit):
            return tokens * len(text) // length
        length *= _CHARACTERS
    return engine.count(text)
